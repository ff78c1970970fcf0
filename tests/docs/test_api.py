"""The API pages leave no public name out, and name nothing that is not there."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import liquid_ode
import solvers

PAGES = Path(__file__).parents[2] / "docs/api"
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", flags=re.MULTILINE)


def public_packages() -> Iterator[ModuleType]:
    for top in (solvers, liquid_ode):
        yield top
        for found in pkgutil.walk_packages(top.__path__, f"{top.__name__}."):
            package = import_module(found.name) if found.ispkg else None
            if package is not None and getattr(package, "__all__", None):
                yield package


def shown_paths() -> list[str]:
    return [
        path for page in sorted(PAGES.rglob("*.md")) for path in DIRECTIVE.findall(page.read_text())
    ]


def named(path: str) -> Any:
    """What stands under a path such as ``liquid_ode.diffusion.Sampler``."""
    owner, _, name = path.rpartition(".")
    return getattr(import_module(owner), name) if owner else import_module(name)


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    for module in ("solvers.suite", "liquid_ode.trained"):  # not imported by their package
        import_module(module)
    return {path: named(path) for path in shown_paths()}


def test_nothing_is_shown_twice() -> None:
    paths = shown_paths()
    assert sorted(set(paths)) == sorted(paths)


@pytest.mark.parametrize("package", list(public_packages()), ids=lambda package: package.__name__)
def test_no_public_name_is_left_out(package: ModuleType, shown: dict[str, Any]) -> None:
    missing = []
    for name in package.__all__:
        value = getattr(package, name)
        instead = type(value) if isinstance(value, Enum) else value  # shown as the enum's member
        if f"{package.__name__}.{name}" not in shown and not any(
            instead is other for other in shown.values()
        ):
            missing.append(name)
    assert not missing, (
        f"no page in docs/api/ shows {', '.join(missing)} of {package.__name__}: write a line "
        f"'::: {package.__name__}.{missing[0]}' on the page where it belongs"
    )


@pytest.mark.parametrize("path", shown_paths())
def test_what_is_shown_has_a_docstring(path: str, shown: dict[str, Any]) -> None:
    value = shown[path]
    if isinstance(value, (type, ModuleType)) or inspect.isroutine(value):  # not a constant
        assert (value.__doc__ or "").strip()
