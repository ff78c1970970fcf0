"""What type checkers see of the package's top is what Python gives."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import liquid_ode
from solvers import registry
from tests import typed_use


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse(Path(liquid_ode.__file__).read_text())
    (block,) = (each for each in tree.body if isinstance(each, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        assert statement.module is not None
        seen |= {alias.name: statement.module for alias in statement.names}
    assert sorted(seen) == sorted(liquid_ode.__all__)
    for name, module in seen.items():
        assert getattr(liquid_ode, name) is getattr(import_module(module), name)


@pytest.mark.parametrize(
    "use",
    [
        typed_use.solve,
        typed_use.more_solving,
        typed_use.cells,
        typed_use.diffusion,
        typed_use.training,
    ],
)
def test_typed_use_runs(use: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    use()
