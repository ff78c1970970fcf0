"""What type checkers see of the package's top is what Python gives."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import liquid_ode
import solvers
from solvers import registry
from tests import typed_use, typed_use_all


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
        typed_use_all.methods,
        typed_use_all.stiff,
        typed_use_all.drop_in,
        typed_use_all.learning,
        typed_use_all.more_cells,
        typed_use_all.more_diffusion,
        typed_use_all.from_python,
    ],
)
def test_typed_use_runs(use: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    use()


@pytest.mark.parametrize("package", [solvers, liquid_ode], ids=lambda package: package.__name__)
def test_every_public_name_is_used_with_its_type(package: ModuleType) -> None:
    used = set()
    for file in (typed_use, typed_use_all):
        for node in ast.walk(ast.parse(Path(file.__file__ or "").read_text())):
            used |= {node.id} if isinstance(node, ast.Name) else set()
            used |= {node.attr} if isinstance(node, ast.Attribute) else set()
    left = sorted(set(package.__all__) - used)
    assert not left, f"use {', '.join(left)} in tests/typed_use.py, so that their types are checked"
