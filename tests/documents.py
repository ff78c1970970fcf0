"""Documents do what they say: their Python runs, and their commands name what exists."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

import solvers
from docs.tools.blocks import calls
from liquid_ode import commands
from liquid_ode.trained import find

ROOT = Path(__file__).parent.parent

RUN_EACH = """
import json, sys
from docs.tools.execute import PageError, execute
failures = {}
for name, codes in json.load(sys.stdin).items():
    try:
        execute(codes, name)
        failures[name] = None
    except PageError as error:
        failures[name] = str(error)
with open(sys.argv[1], "w") as file:
    json.dump(failures, file)
"""


def failures(programs: Mapping[str, Sequence[str]], folder: Path) -> dict[str, str | None]:
    """What each program raises, run by itself, its blocks one after the other.

    In one process for all, since importing torch takes longer than the programs; not in this one,
    since they seed and import what they like.
    """
    found = folder / "failures.json"
    subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", RUN_EACH, str(found)],
        input=json.dumps({name: list(codes) for name, codes in programs.items()}),
        text=True,
        check=True,
        cwd=folder,
        env=_with_root(),
    )
    read: dict[str, str | None] = json.loads(found.read_text())
    return read


def own_calls(documents: Iterable[Path]) -> list[tuple[str, ...]]:
    """Every call of ours in shell blocks, as its words: from a script on, or of ``liquid-ode``."""
    found = {}
    for document in documents:
        for call in calls(document.read_text()):
            starts = (place for place, word in enumerate(call) if _is_ours(word))
            place = next(starts, None)
            if place is not None:
                found[tuple(call[place:])] = None
    return list(found)


def _is_ours(word: str) -> bool:
    return word == "liquid-ode" or word.startswith("examples/")


def check_call(
    call: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is called exists, and knows its options, its solver and its run."""
    if call[0] != "liquid-ode":
        monkeypatch.syspath_prepend((ROOT / call[0]).parent)
        monkeypatch.setattr(sys, "argv", [call[0], "--help"])
    with pytest.raises(SystemExit) as end:
        _print_help(call)
    assert end.value.code == 0
    printed = capsys.readouterr().out
    own = call[1 : call.index("--")] if "--" in call else call[1:]
    for option in (word for word in own if re.match(r"--?[a-z]", word)):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", printed), option
    if "--solver" in call:
        name = call[call.index("--solver") + 1]
        assert name in solvers.names() or name.startswith(("learned:", "my_solvers:"))
    for word in call:
        if word.startswith("pretrained:"):
            assert find(word).is_dir()


def _print_help(call: Sequence[str]) -> None:
    """Raises SystemExit, as a program ends."""
    if call[0] == "liquid-ode":
        assert call[1] in commands.COMMANDS
        raise SystemExit(commands.main([call[1], "--help"]))
    runpy.run_path(str(ROOT / call[0]), run_name="__main__")


def _with_root() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
