"""The README does what it says: its code blocks run, its tables are those of the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import solvers
from liquid_ode import model_names, summary

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code: str) -> None:
    # A process of its own: the blocks import and seed what they like.
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_there_are_blocks() -> None:
    assert len(blocks("python")) >= 3
    assert len(blocks("bash")) >= 3


def script_lines() -> list[list[str]]:
    """Every call of one of our scripts, as its words."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    words = [shlex.split(part) for line in lines for part in line.split("&&")]
    return [call for call in words if call[:1] == ["python"] and call[1].startswith("examples/")]


@pytest.mark.parametrize("call", script_lines(), ids=" ".join)
def test_bash_blocks_name_scripts_and_options_that_exist(call: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / call[1]), "--help"], capture_output=True, text=True, check=True
    )
    for option in (word for word in call[2:] if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", run.stdout), option
    if "--solver" in call:
        name = call[call.index("--solver") + 1]
        assert name in solvers.names() or name.startswith("learned:")


def test_tables_are_those_of_the_code() -> None:
    assert summary.models_table() in TEXT
    assert summary.solvers_table() in TEXT
    assert all(f"`{name}`" in TEXT for name in model_names())


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
