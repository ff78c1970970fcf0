"""What is published says the same everywhere, and leaves nothing out."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import liquid_ode

ROOT = Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text()


def test_the_version_is_one() -> None:
    version = liquid_ode.__version__
    assert f'\nversion = "{version}"\n' in PROJECT
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_is_there() -> None:
    found = re.search(r'^liquid-ode = "([\w.]+):(\w+)"$', PROJECT, flags=re.MULTILINE)
    assert found is not None
    assert callable(getattr(import_module(found[1]), found[2]))


@pytest.mark.parametrize("package", ["liquid_ode", "solvers"])
def test_the_wheel_has_every_file_of_a_package(package: str) -> None:
    """Of files that are no modules the patterns of package-data have to tell."""
    found = re.search(rf"^{package} = \[(.*)\]$", PROJECT, flags=re.MULTILINE)
    assert found is not None
    folder = ROOT / package
    patterns = re.findall(r'"([^"]+)"', found[1])
    told = {path for pattern in patterns for path in folder.glob(pattern)}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert path in told, path


def test_the_source_distribution_has_what_the_tests_need() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text()
    for folder in (".ci", "docs", "examples", "tests"):
        assert f"graft {folder}\n" in manifest
    for name in ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md"):
        assert name in manifest
        assert (ROOT / name).is_file()
