"""The README does what it says: its code blocks run, its tables are those of the code."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import solvers
from liquid_ode import model_names, summary
from tests.versions import needs_compiler

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


RUN_EACH = """
import json, sys, traceback, types
failures = []
for code in json.load(sys.stdin):
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    try:
        exec(compile(code, "README.md", "exec"), main.__dict__)
        failures.append(None)
    except BaseException:
        failures.append(traceback.format_exc())
with open(sys.argv[1], "w") as file:
    json.dump(failures, file)
"""


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> list[str | None]:
    """What each Python block raises, run by itself.

    In one process for all, since importing torch takes longer than the blocks; not in this one,
    since they seed and import what they like.
    """
    found = tmp_path_factory.mktemp("readme") / "failures.json"
    subprocess.run(
        [sys.executable, "-c", RUN_EACH, str(found)],
        input=json.dumps(blocks("python")),
        text=True,
        check=True,
        cwd=found.parent,
    )
    read: list[str | None] = json.loads(found.read_text())
    return read


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(index, marks=[needs_compiler] if "torch.export" in code else [])
        for index, code in enumerate(blocks("python"))
    ],
)
def test_python_blocks_run(failures: list[str | None], index: int) -> None:
    assert failures[index] is None, failures[index]


def test_there_are_blocks() -> None:
    assert len(blocks("python")) >= 3
    assert len(blocks("bash")) >= 3


def script_lines() -> list[list[str]]:
    """Every call of one of our scripts, as its words."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    words = [shlex.split(part) for line in lines for part in line.split("&&")]
    return [call for call in words if call[:1] == ["python"] and call[1].startswith("examples/")]


@pytest.mark.parametrize("call", script_lines(), ids=" ".join)
def test_bash_blocks_name_scripts_and_options_that_exist(
    call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / call[1]
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    printed = capsys.readouterr().out
    for option in (word for word in call[2:] if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", printed), option
    if "--solver" in call:
        name = call[call.index("--solver") + 1]
        assert name in solvers.names() or name.startswith(("learned:", "my_solvers:"))


def test_tables_are_those_of_the_code() -> None:
    assert summary.models_table() in TEXT
    assert summary.solvers_table() in TEXT
    assert all(f"`{name}`" in TEXT for name in model_names())


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
