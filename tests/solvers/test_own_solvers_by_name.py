"""One's own solvers by name: registered, or found in a module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import solvers
from liquid_ode import summary
from solvers import registry
from solvers.loop.problem import Problem
from tests.solvers.own_methods import KUTTA3, Kutta3
from tests.solvers.own_rules import Doubling, Graded, GradedHeun

MODULE = """
import solvers
import beside

class Fine(solvers.Heun, step_size=solvers.Uniform(beside.STEPS)):
    "Heun's method."

READY = solvers.Tsit5(rtol=1e-7)

class Holder:
    Inner = Fine

NUMBER = 3
"""


@dataclass(frozen=True)
class Scaled(solvers.Solver):
    """A solver that is none of the package's: Euler's one step, scaled."""

    scale: float = 1.0
    steps: int = 1

    def solve_problem(self, problem: Problem) -> solvers.Solution:
        t0, t1 = problem.t_span
        slope = problem.field(torch.tensor(t0), problem.y0)
        y = problem.y0 + self.scale * (t1 - t0) * slope
        return solvers.Solution(y, None, solvers.Stats(1, 1), torch.zeros(len(y)))

    def with_steps(self, steps: int) -> Scaled:
        return self


class Drawn(solvers.LearnedSolver):
    """A module, made anew each time it is asked for; its kind has to be said."""

    def __init__(self, kind: str, evaluations: int = 2) -> None:
        super().__init__([solvers.LearnedMethod.of(kind, evaluations)])


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with a module of a user's own."""
    (tmp_path / "my_solvers.py").write_text(MODULE)
    (tmp_path / "beside.py").write_text("STEPS = 9\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("my_solvers", "beside"):
        sys.modules.pop(name, None)


def test_a_solver_is_registered() -> None:
    solvers.register("fine", solvers.Tsit5(rtol=1e-7, gradient=solvers.Checkpointing()))
    assert solvers.names()[-1] == "fine"
    assert solvers.options("fine") == {
        "rtol": 1e-7, "atol": 1e-6, "max_steps": 10_000, "shared": False, "steps": None,
        "gradient": "checkpointing",
    }  # fmt: skip
    assert solvers.get("fine") == solvers.Tsit5(rtol=1e-7, gradient=solvers.Checkpointing())
    found = solvers.get("fine", steps=3, gradient="backsolve")
    assert found == solvers.Tsit5(3, gradient=solvers.BacksolveAdjoint())
    with pytest.raises(
        ValueError, match=r"'fine' takes no option 'sharpness'; it takes rtol=1e-07"
    ):
        solvers.get("fine", sharpness=1.0)


def test_a_class_a_method_and_rules_of_ones_own() -> None:
    solvers.register("graded_heun", GradedHeun)
    solvers.register("kutta3", KUTTA3)
    solvers.register("doubling", solvers.Bosh3(step_size=Doubling(1e-3)))
    assert solvers.get("graded_heun", steps=20) == GradedHeun(20)
    assert solvers.get("graded_heun", steps=20).step_size == Graded(20)  # type: ignore[attr-defined]
    assert solvers.get("graded_heun", rtol=1e-3) == GradedHeun(rtol=1e-3)
    assert solvers.get("kutta3", steps=4) == solvers.NativeSolver(4, method=KUTTA3)
    assert solvers.options("doubling")["safety"] == 0.9
    assert solvers.get("doubling", safety=0.5) == solvers.Bosh3(
        step_size=Doubling(1e-3, safety=0.5)
    )
    assert solvers.get("doubling", steps=4) == solvers.Bosh3(4)


def test_a_solver_that_is_none_of_the_package() -> None:
    solvers.register("scaled", Scaled(2.0))
    solvers.register("scaled_class", Scaled)
    assert solvers.options("scaled") == {"scale": 2.0, "steps": 1}
    assert solvers.get("scaled", scale=3.0) == Scaled(3.0)
    assert solvers.options("scaled_class") == {"scale": 1.0, "steps": 1}
    assert solvers.get("scaled_class", scale=3.0) == Scaled(3.0)
    solvers.register("drawn", Drawn)
    assert solvers.options("drawn") == {"kind": None, "evaluations": 2}
    one, other = (solvers.get("drawn", kind="explicit") for _ in range(2))
    assert one is not other  # each has coefficients of its own
    with pytest.raises(ValueError, match=r"solver 'drawn' cannot be made: .*kind"):
        solvers.get("drawn")


def test_tables_and_unknown_names_name_what_is_registered() -> None:
    solvers.register("scaled", Scaled())
    assert "| `scaled` | A solver that is none of the package's" in summary.solvers_table()
    with pytest.raises(ValueError, match=r"did you mean 'scaled'.*register is known only where"):
        solvers.get("scaledd")


@pytest.mark.parametrize("name", ["euler", "rk4", "learned"])
def test_names_of_the_package_are_its_own(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is a solver of this package"):
        solvers.register(name, Kutta3, replace=True)


def test_a_name_stands_for_one_thing() -> None:
    solvers.register("mine", Kutta3)
    solvers.register("mine", Kutta3)  # as a module that is run twice does
    with pytest.raises(ValueError, match=r"'mine' is registered already, for Kutta3.*replace=True"):
        solvers.register("mine", GradedHeun)
    assert solvers.get("mine") == Kutta3()
    solvers.register("mine", GradedHeun, replace=True)
    assert solvers.get("mine") == GradedHeun()


@pytest.mark.parametrize("name", ["", " ", "a:b", 3])
def test_a_name_is_a_word(name: Any) -> None:
    with pytest.raises(ValueError, match="a word without a colon"):
        solvers.register(name, Kutta3)


@pytest.mark.parametrize("value", [3, "euler", int, None, torch.nn.Linear(1, 1)])
def test_what_is_no_solver_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a solvers\.Solver, a class of them or a"):
        solvers.register("mine", value)


def test_by_its_module() -> None:
    assert solvers.get("tests.solvers.own_rules:GradedHeun", steps=3) == GradedHeun(3)
    assert solvers.get("tests.solvers.own_methods:KUTTA3") == solvers.NativeSolver(method=KUTTA3)
    assert solvers.options("tests.solvers.own_rules:GradedHeun")["steps"] == 8


def test_in_the_current_directory(folder: Path) -> None:
    """As every script finds it, wherever the script lies; and what lies beside it."""
    before = list(sys.path)
    assert repr(solvers.get("my_solvers:Fine")) == "Fine(steps=9)"
    assert repr(solvers.get("my_solvers:Holder.Inner", steps=2)) == "Fine(steps=2)"
    assert solvers.get("my_solvers:READY") == solvers.Tsit5(rtol=1e-7)
    assert sys.path == before


def test_the_current_directory_hides_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "my_solvers.py").write_text("import solvers\nFine = solvers.Euler(2)\n")
    monkeypatch.syspath_prepend(elsewhere)
    assert solvers.get("my_solvers:Fine") == solvers.Euler(2)


def test_the_current_directory_may_be_on_the_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    before = list(sys.path)
    solvers.get("my_solvers:Fine")
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_solver:Fine", "there is no module 'my_solver', neither installed, nor on PYTHONPATH"),
        ("nowhere.at_all:Fine", "there is no module 'nowhere'"),
        (
            "my_solvers:Find",
            r"'my_solvers' \(.*my_solvers\.py\) has no 'Find' \(did you mean 'Fine'",
        ),
        (
            "my_solvers:NUMBER",
            "must be a solvers.Solver, a class of them or a solvers.Method, not 3",
        ),
        ("my_solvers:", "is named package.module:Class"),
        (":Fine", "is named package.module:Class"),
        ("my solvers:Fine", "is named package.module:Class"),
        ("a:b:c", "is named package.module:Class"),
    ],
)
def test_what_cannot_be_found_is_named(folder: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solvers.get(name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_thing", "importing 'broken' failed: No module named 'no_such_thing'"),
        ("1 / 0", "importing 'broken' failed: ZeroDivisionError"),
        ("def", "importing 'broken' failed: SyntaxError"),
    ],
)
def test_a_fault_of_the_module_is_told(folder: Path, source: str, message: str) -> None:
    (folder / "broken.py").write_text(source)
    with pytest.raises(ValueError, match=message) as found:
        solvers.get("broken:Fine")
    assert found.value.__cause__ is not None
