"""What mkdocs calls while it builds the site."""

from __future__ import annotations
