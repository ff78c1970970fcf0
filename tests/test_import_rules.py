"""The boundaries between the parts, read off their imports (DESIGN section 2)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# package: what it must not import
FORBIDDEN = {
    "solvers": ["liquid_ode", "studies"],
    "liquid_ode": ["studies"],  # which is not in the wheel
    "liquid_ode/cells": [
        "liquid_ode.models",
        "liquid_ode.diffusion",
        "liquid_ode.training",
        "liquid_ode.data",
        "liquid_ode.evaluation",
    ],
    "liquid_ode/models": [
        "liquid_ode.diffusion",
        "liquid_ode.training",
        "liquid_ode.data",
        "liquid_ode.evaluation",
    ],
    "liquid_ode/diffusion": [
        "liquid_ode.cells",
        "liquid_ode.models",
        "liquid_ode.training",
        "liquid_ode.data",
        "liquid_ode.evaluation",
    ],
    "liquid_ode/data": ["liquid_ode.models", "liquid_ode.diffusion", "liquid_ode.training"],
    "liquid_ode/evaluation": ["liquid_ode.training"],
}

# A default is the only solver that liquid_ode may name; the rest are what any solver shares.
SOLVER_CLASSES = {"Heun", "Midpoint", "ExponentialEuler", "SemiImplicitEuler", "TorchDiffEq"}
# The fused update that the cell is published with; explicit Euler diverges on it.
OWN_DEFAULTS = {"ltc/cell.py": {"SemiImplicitEuler"}}


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def imported(path: Path) -> set[str]:
    """Every module a file imports, and every name it takes out of one."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; the rules read absolute names"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize(("package", "forbidden"), FORBIDDEN.items())
def test_boundaries(package: str, forbidden: list[str]) -> None:
    for path in files(package):
        for name in imported(path):
            bad = [rule for rule in forbidden if name == rule or name.startswith(rule + ".")]
            assert not bad, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    ("house", "depth"), [("solvers", 2), ("liquid_ode", 2), ("liquid_ode/cells", 3)]
)
def test_the_rooms_stand_on_each_other(house: str, depth: int) -> None:
    """No file is, by way of others, imported by what it imports, nor is any folder."""

    def arrows(room: Callable[[str], str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
        for path in paths:
            here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            there = {room(name) for name in imported(path) if name in modules}
            found.setdefault(room(here), set()).update(there - {room(here)})
        return found

    paths = [path for path in files(house) if path.name != "__init__.py"]
    for room in (lambda name: name, lambda name: ".".join(name.split(".")[:depth])):
        left = arrows(room)
        while left:
            on_the_ground = {name for name, below in left.items() if not below & left.keys()}
            assert on_the_ground, f"a circle among {sorted(left)}"
            left = {name: below for name, below in left.items() if name not in on_the_ground}


def test_private_state_of_torch_is_left_alone() -> None:
    for path in [*files("solvers"), *files("liquid_ode/cells")]:
        for node in ast.walk(ast.parse(path.read_text())):
            private = isinstance(node, ast.Attribute) and node.attr.startswith("_")
            if private and ast.unparse(node).startswith("torch."):
                raise AssertionError(f"{path.relative_to(ROOT)} uses {ast.unparse(node)}")


def test_torchdiffeq_is_imported_by_its_adapter_alone() -> None:
    for path in [*files("solvers"), *files("liquid_ode")]:
        if path.name != "torchdiffeq_adapter.py":
            assert not [name for name in imported(path) if name.split(".")[0] == "torchdiffeq"]


def test_liquid_ode_names_no_solver_but_the_default() -> None:
    for path in files("liquid_ode"):
        named = {
            node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)
        }
        allowed = OWN_DEFAULTS.get("/".join(path.parts[-2:]), set())
        assert not (named & SOLVER_CLASSES) - allowed, path


def test_examples_use_the_public_interface() -> None:
    for path in files("examples"):
        private = [
            name for name in imported(path) if any(p.startswith("_") for p in name.split("."))
        ]
        assert [
            name for name in private if name != "__future__" and "__future__." not in name
        ] == []


def test_importing_is_light() -> None:
    statements = [
        "import solvers, liquid_ode",
        "from liquid_ode import LiquidCell, create_model, GaussianDiffusion, DDIM, TrainConfig",
        "liquid_ode.train",
    ]
    heavy = {"torchvision", "matplotlib", "accelerate", "torchdiffeq", "scipy", "diffusers"}
    look = f"print(sorted({heavy!r} & set(sys.modules)))"
    code = "\n".join(["import sys", *(f"{statement}\n{look}" for statement in statements)])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["[]"] * len(statements)


def test_public_names() -> None:
    import liquid_ode
    import solvers

    promised = {
        solvers: "Euler ExponentialEuler TorchDiffEq GradientScaled Uniform Solution SolverError",
        liquid_ode: "LiquidCell LiquidRNN Wiring create_model GaussianDiffusion CosineSchedule "
        "LinearSchedule MinSNR DDIM ProbabilityFlow train",
    }
    for package, names in promised.items():
        for name in names.split():
            assert getattr(package, name).__name__ == name
    for name in liquid_ode.__all__:
        assert getattr(liquid_ode, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Liquid'"):
        liquid_ode.Liquid  # noqa: B018
