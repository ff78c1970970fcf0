"""The built-in suite of problems: their references, and what they are built of."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

import solvers
from solvers import suite
from solvers.fields.base import fitted
from solvers.fields.batch_parts import select

SEMILINEAR = {"liquid", "stiff_liquid", "forced"}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Solves this small are slowed down by more, the more so where other programs run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", suite.names())
def test_the_reference_is_what_another_method_finds(name: str) -> None:
    problem = suite.problem(name, dtype=torch.float64)
    tight = solvers.get("tsit5", rtol=1e-9, atol=1e-10)
    solution = tight.solve(problem.field, problem.y0, problem.span)
    assert problem.error(solution.y) < 1e-7
    assert problem.reference.shape == problem.y0.shape
    assert problem.reference.dtype == torch.float64


@pytest.mark.parametrize("name", suite.names())
def test_in_float32_the_error_falls_to_its_rounding(name: str) -> None:
    problem = suite.problem(name)
    assert problem.y0.dtype == torch.float32
    solution = solvers.get("classic_rk4", steps=200).solve(problem.field, problem.y0, problem.span)
    assert problem.error(solution.y) < 5e-6


@pytest.mark.parametrize("name", suite.names())
def test_errors_fall_at_the_order_of_a_method(name: str) -> None:
    problem = suite.problem(name, dtype=torch.float64)
    coarse, fine = (
        problem.error(
            solvers.get("classic_rk4", steps=n).solve(problem.field, problem.y0, problem.span).y
        )
        for n in (160, 320)
    )
    assert 3.7 < math.log2(coarse / fine) < 4.4


@pytest.mark.parametrize("name", suite.names())
def test_a_field_can_be_asked_for_a_part_of_its_batch(name: str) -> None:
    problem = suite.problem(name, dtype=torch.float64)
    rows = torch.tensor([5, 2, 11])
    field = select(fitted(problem.field, problem.y0), rows)
    t = torch.tensor(0.3, dtype=torch.float64)
    whole = problem.field(t, problem.y0)
    torch.testing.assert_close(field(t, problem.y0[rows]), whole[rows])
    assert isinstance(problem.field, solvers.SemilinearField) == (name in SEMILINEAR)


def test_stiffness_is_what_the_names_say() -> None:
    def error(name: str, solver: str) -> float:
        problem = suite.problem(name)
        solution = solvers.get(solver, steps=3).solve(problem.field, problem.y0, problem.span)
        return problem.error(solution.y)

    assert error("liquid", "uniform_euler") < 0.2
    assert error("stiff_liquid", "uniform_euler") > 1
    assert error("stiff_liquid", "exponential_euler") < 0.2


def test_the_error_is_relative() -> None:
    y0 = torch.zeros(2, 2)
    reference = torch.tensor([[3.0, 4.0], [0.0, 5.0]], dtype=torch.float64)
    problem = suite.KnownProblem("p", "", lambda t, y: y, y0, (0.0, 1.0), reference)
    assert problem.error(reference.float()) == 0
    assert problem.error(reference * 1.1) == pytest.approx(0.1)
    # RMS(difference) = 1, RMS(reference) = sqrt(50 / 4)
    assert problem.error(reference + 1) == pytest.approx(math.sqrt(4 / 50))
    assert math.isnan(problem.error(reference * math.nan))


def test_a_seed_draws_the_same_and_another_draws_others() -> None:
    first, again, other = (suite.problem("pendulum", seed=seed).y0 for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="no problem 'magic'; it has liquid,"):
        suite.problem("magic")
    problem = suite.problem("pendulum")
    with pytest.raises(ValueError, match=r"has shape \(64, 2\), not \(3, 2\)"):
        problem.error(problem.y0[:3])
    with pytest.raises(ValueError, match="float64"):
        suite.tight_solution(problem.field, problem.y0, problem.span)


@pytest.mark.parametrize("name", suite.names())
@pytest.mark.parametrize("solver", [n for n in solvers.names() if "rtol" in solvers.options(n)])
def test_error_control_keeps_the_error_near_the_tolerance(name: str, solver: str) -> None:
    problem = suite.problem(name)
    controlled = solvers.get(solver, rtol=1e-4, atol=1e-5)
    try:
        solution = controlled.solve(problem.field, problem.y0, problem.span)
    except ValueError:
        assert name not in SEMILINEAR
        return
    assert problem.error(solution.y) < 5e-3
