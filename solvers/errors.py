"""What goes wrong in a solve."""

from __future__ import annotations


class SolverError(RuntimeError):
    """A solve failed: the message says how many samples, why, and what to change."""
