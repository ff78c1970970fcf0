"""The README does what it says: its code blocks run, its tables are those of the code."""

from __future__ import annotations

import re

import pytest

from docs.tools.blocks import blocks, calls
from liquid_ode import model_names, summary
from tests.documents import ROOT, check_call, failures, own_calls
from tests.versions import needs_compiler

README = ROOT / "README.md"
TEXT = README.read_text()
PROGRAMS = {f"README.md {place}": code for place, code in enumerate(blocks(TEXT, "python"), 1)}


@pytest.fixture(scope="module")
def raised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    codes = {name: [code] for name, code in PROGRAMS.items()}  # each block is a program
    return failures(codes, tmp_path_factory.mktemp("readme"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[needs_compiler] if "torch.export" in code else [])
        for name, code in PROGRAMS.items()
    ],
)
def test_python_blocks_run(raised: dict[str, str | None], name: str) -> None:
    assert raised[name] is None, raised[name]


def test_there_are_blocks() -> None:
    assert len(PROGRAMS) >= 3
    assert len(calls(TEXT)) >= 3


@pytest.mark.parametrize("call", own_calls([README]), ids=" ".join)
def test_bash_blocks_name_what_exists(
    call: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_call(call, monkeypatch, capsys)


def test_tables_are_those_of_the_code() -> None:
    assert summary.models_table() in TEXT
    assert summary.solvers_table() in TEXT
    assert all(f"`{name}`" in TEXT for name in model_names())


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
