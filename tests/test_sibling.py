"""A ``solvers`` of the user's own that hides the package which comes with ``liquid_ode``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a folder, which it looks through before all else."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["solvers.py", "solvers/__init__.py"])
def test_another_solvers_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    other = tmp_path / name
    other.parent.mkdir(exist_ok=True)
    other.write_text("mine = 1\n")
    (tmp_path / "script.py").write_text("import solvers\nimport liquid_ode\n")  # in either order
    for call in (["-c", "import liquid_ode"], ["-m", "liquid_ode"], ["script.py"]):
        found = run(tmp_path, *call)
        assert found.returncode == 1
        last = found.stderr.strip().splitlines()[-1]
        assert last.startswith("ImportError: liquid_ode comes with a package 'solvers', and anoth")
        assert str(other) in last
        assert "Rename that file or folder" in last


def test_other_names_and_bare_folders_are_no_matter(tmp_path: Path) -> None:
    (tmp_path / "solvers").mkdir()  # without __init__.py a package further on comes first
    (tmp_path / "my_solvers.py").write_text("")
    found = run(tmp_path, "-c", "import my_solvers, liquid_ode, solvers; solvers.get('euler')")
    assert found.returncode == 0, found.stderr
