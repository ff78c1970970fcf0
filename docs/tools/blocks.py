"""The code of a Markdown file: its blocks, and what a shell block calls."""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


class Part(NamedTuple):
    """A stretch of a Markdown file: prose, or the code of a block."""

    language: str | None
    """None for prose."""
    text: str


def parts(markdown: str) -> list[Part]:
    """The file from its start to its end."""
    found, place = [], 0
    for block in FENCE.finditer(markdown):
        found += [Part(None, markdown[place : block.start()]), Part(block[1], block[2])]
        place = block.end()
    return [part for part in (*found, Part(None, markdown[place:])) if part.text.strip()]


def blocks(markdown: str, language: str) -> list[str]:
    """The code of every block of that language."""
    return [part.text for part in parts(markdown) if part.language == language]


def calls(markdown: str) -> list[list[str]]:
    """Every call in the file's shell blocks, as its words."""
    code = "\n".join(blocks(markdown, "bash")).replace("\\\n", " ")
    lines = [line for line in code.splitlines() if not line.lstrip().startswith("#")]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [call for call in words if call]
