"""The pages of the site: their Python runs, their commands and figures exist."""

from __future__ import annotations

import ast
import re

import pytest

from docs.tools import results
from docs.tools.blocks import blocks, parts
from docs.tools.pages import DOCS, filled, sources
from tests.documents import ROOT, check_call, failures, own_calls
from tests.versions import needs_compiler

PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in sources()}
PROGRAMS = {name: blocks(text, "python") for name, text in PAGES.items() if "```python" in text}
EXPORTING = {name for name, codes in PROGRAMS.items() if "torch.export" in "".join(codes)}


@pytest.fixture(scope="module")
def raised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    return failures(PROGRAMS, tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[needs_compiler] if name in EXPORTING else []) for name in PROGRAMS],
)
def test_the_blocks_of_a_page_run_in_their_order(raised: dict[str, str | None], name: str) -> None:
    assert raised[name] is None, raised[name]


def test_code_that_is_not_run_is_python_at_least() -> None:
    for text in PAGES.values():
        for code in blocks(text, "py"):  # of packages that are not installed
            ast.parse(code)


@pytest.mark.parametrize("call", own_calls(sources()), ids=" ".join)
def test_bash_blocks_name_what_exists(
    call: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_call(call, monkeypatch, capsys)


def test_programs_that_are_named_exist() -> None:
    for name, text in PAGES.items():
        for path in re.findall(r"`((?:examples|solvers|liquid_ode|docs|tests)/[\w./]+)`", text):
            assert (ROOT / path).exists(), f"{name} names {path}"
    for program in re.findall(r"`(\w+\.py)`", PAGES["guides/index.md"]):
        assert (ROOT / "examples" / program).is_file()


@pytest.mark.parametrize("command", results.COMMANDS.values())
def test_commands_of_results_exist(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.split()
    check_call(words[words[0] == "python" :], monkeypatch, capsys)


@pytest.mark.parametrize("name", PAGES)
def test_figures_are_filled_in(name: str) -> None:
    prose = "".join(part.text for part in parts(filled(PAGES[name])) if part.language is None)
    assert "{{" not in prose
    assert "| None |" not in prose


def test_every_record_is_on_a_page_with_its_command() -> None:
    text = "".join(PAGES.values())
    for path in results.RESULTS.glob("*.json"):
        assert path.stem in results.COMMANDS, f"no command in docs/tools/results.py for {path.name}"
        assert f'"{path.stem}"' in text, f"no page shows {path.name}"


def test_every_picture_is_on_a_page() -> None:
    text = "".join(PAGES.values())
    for picture in (ROOT / "examples/pictures").glob("*.png"):
        assert f"pictures/{picture.name}" in text, f"no page shows {picture.name}"


def test_every_measurement_says_when_it_was_made() -> None:
    records = [*results.RESULTS.glob("*.json"), *results.TRAINED.glob("*/evaluation-*.json")]
    for path in records:
        dates = re.findall(r'"date": "(\d{4}-\d\d-\d\d)"', path.read_text())
        assert dates, path


def test_a_notebook_has_the_code_of_its_page() -> None:
    nbformat = pytest.importorskip("nbformat")
    from docs.tools.notebooks import notebook

    for path in sorted((DOCS / "tutorials").glob("*.md")):
        made = nbformat.reads(notebook(path.read_text()), as_version=4)
        cells = [cell.source for cell in made.cells if cell.cell_type == "code"]
        assert cells == [code.strip() for code in blocks(path.read_text(), "python")]


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    assert [name for name in PAGES if name not in nav] == []
