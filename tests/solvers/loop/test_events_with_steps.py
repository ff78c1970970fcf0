"""Events with a number of steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    ClassicRK4,
    Euler,
    Event,
    ExponentialEuler,
    Heun,
    ParameterisedField,
    SemilinearField,
    Uniform,
)

F64 = torch.float64
RATES = torch.tensor([[0.5], [2.0], [0.1], [7.0]], dtype=F64)
ONES = torch.ones(4, 1, dtype=F64)
TIMES = torch.where(RATES[:, 0] < 0.6, math.nan, math.log(2) / RATES[:, 0])

below_half = Event(lambda t, y: y[:, 0] - 0.5)


def decay(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    return -rates * y


FIELD = ParameterisedField(decay, RATES)
LEAK = SemilinearField(ParameterisedField(lambda t, y, rates: 0 * y, RATES), 1 / RATES)
SOLVERS = [
    Euler(2000),
    Euler(step_size=Uniform(2000)),
    Heun(400),
    ClassicRK4(50),
    solvers.DormandPrince(25),
    ClassicRK4(step_size=solvers.GradientScaled(50)),
    Heun(400, gradient=solvers.Checkpointing()),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_times_and_states(solver: solvers.NativeSolver) -> None:
    found = solver.solve(FIELD, ONES, event=below_half)
    torch.testing.assert_close(found.event_time, TIMES, rtol=0, atol=2e-3, equal_nan=True)
    final = torch.where(TIMES.isnan(), torch.exp(-RATES[:, 0]), 0.5)
    torch.testing.assert_close(found.y[:, 0], final, rtol=0, atol=2e-3)
    assert found.status.tolist() == [0] * 4
    assert found.event_index is not None
    assert found.event_index.tolist() == [-1, 0, -1, 0]


@pytest.mark.parametrize("kind", [ExponentialEuler, solvers.SemiImplicitEuler, solvers.ETDRK2])
def test_semilinear_methods(kind: type[solvers.NativeSolver]) -> None:
    found = kind(500).solve(LEAK, ONES, event=below_half)
    torch.testing.assert_close(found.event_time, TIMES, rtol=0, atol=5e-3, equal_nan=True)


def test_a_learned_solver() -> None:
    method = solvers.LearnedMethod.of("explicit", 4)
    found = solvers.LearnedSolver([method], 400).solve(FIELD, ONES, event=below_half)
    torch.testing.assert_close(found.event_time, TIMES, rtol=0, atol=2e-3, equal_nan=True)


@pytest.mark.parametrize("steps", [3, 40])
def test_the_steps_are_those_without_an_event(steps: int) -> None:
    """And a sample is evaluated until it ends, where the others can be asked for alone."""
    sizes = []

    def counted(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
        sizes.append(len(y))
        return -rates * y

    event = Event(ParameterisedField(lambda t, y: y[:, 0] - 0.5))
    alone = ClassicRK4(steps).solve(FIELD, ONES)
    found = ClassicRK4(steps).solve(ParameterisedField(counted, RATES), ONES, event=event)
    stay = [0, 2]
    torch.testing.assert_close(found.y[stay], alone.y[stay], rtol=1e-12, atol=1e-13)
    nfe, accepted = found.stats.nfe, found.stats.accepted
    assert isinstance(nfe, Tensor)
    assert isinstance(accepted, Tensor)
    assert int(nfe.sum()) == sum(sizes)
    assert accepted[stay].tolist() == [steps, steps]
    ends = [math.ceil(float(TIMES[row]) * steps - 1e-9) for row in (1, 3)]
    if steps > 3:
        assert accepted[[1, 3]].tolist() == ends


def test_a_plain_function_and_its_evaluations() -> None:
    count = 0

    def field(t: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        assert t.shape == ()  # as the field has it with equal steps
        count += 1
        return -RATES * y

    found = Heun(40).solve(field, ONES, event=below_half)
    torch.testing.assert_close(found.event_time, TIMES, rtol=0, atol=1e-2, equal_nan=True)
    assert found.stats.nfe.tolist() == [count] * 4  # type: ignore[union-attr]


@pytest.mark.parametrize("solver", [Heun(20), Euler(20), Euler(step_size=Uniform(20))], ids=repr)
def test_rows_that_depend_on_each_other_are_refused(solver: solvers.NativeSolver) -> None:
    """A row that has ended would be missing from the others."""

    def coupled(t: Tensor, y: Tensor) -> Tensor:
        return y.mean(0, keepdim=True) - 2 * y

    with pytest.raises(ValueError, match="Rows of the state depend on each other"):
        solver.solve(coupled, torch.rand(4, 2, dtype=F64), event=below_half)
    with torch.no_grad(), pytest.raises(ValueError, match="Rows of the state depend"):
        solver.solve(lambda t, y: y.roll(1, 0) - y, torch.rand(4, 2), event=below_half)
    one = solver.solve(
        lambda t, y: y.mean() - 2 * y, torch.rand(4), event=Event(lambda t, y: y.sum() - 0.1)
    )
    assert one.status.shape == ()


def test_states_after_the_event_are_nan() -> None:
    found = ClassicRK4(50).solve(FIELD, ONES, t_eval=[0.0, 0.05, 0.3, 0.9], event=below_half)
    assert found.ys is not None
    over = torch.tensor([0.0, 0.05, 0.3, 0.9], dtype=F64)[:, None] > TIMES
    assert torch.equal(found.ys[..., 0].isnan(), over)


def test_gradients() -> None:
    rates = torch.tensor([[0.9], [2.0]], dtype=F64, requires_grad=True)
    level = torch.tensor(0.5, dtype=F64, requires_grad=True)
    event = Event(lambda t, y: y[:, 0] - level)
    for mode in (solvers.Backpropagation(), solvers.Checkpointing()):
        found = ClassicRK4(100, gradient=mode).solve(
            ParameterisedField(decay, rates), ONES[:2], event=event
        )
        assert found.event_time is not None
        ours = torch.autograd.grad(found.event_time.sum(), (rates, level))
        exact = torch.log(1 / level) / rates
        theirs = torch.autograd.grad(exact.sum(), (rates, level))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_sample_that_leaves_the_finite_numbers_fails_alone() -> None:
    def field(t: Tensor, y: Tensor, bad: Tensor) -> Tensor:
        return torch.where(bad & (y < 0.8), math.inf, -y)

    bad = torch.tensor([[False], [True], [False]])
    found = ClassicRK4(50).solve(
        ParameterisedField(field, bad), ONES[:3], (0.0, 2.0), event=below_half, throw=False
    )
    assert found.status.tolist() == [0, solvers.NON_FINITE, 0]
    assert found.event_time is not None
    assert found.event_time.isnan().tolist() == [False, True, False]


def test_under_vmap_it_is_refused() -> None:
    with pytest.raises(ValueError, match="events end samples by the data"):
        torch.vmap(lambda k: Heun(4).solve(lambda t, y: -k * y, ONES, event=below_half).y)(
            torch.ones(2, dtype=F64)
        )
    with pytest.raises(ValueError, match="events end samples by the data"):
        torch.vmap(
            lambda level: (
                Heun(4).solve(lambda t, y: -y, ONES, event=Event(lambda t, y: y[:, 0] - level)).y
            )
        )(torch.ones(2, dtype=F64))


def test_a_rule_whose_steps_nobody_examines_is_refused() -> None:
    class Own(solvers.StepSizeRule):
        def start(self, bound, span, y0):  # type: ignore[no-untyped-def]
            raise AssertionError

        propose = judge = start

    solver = solvers.NativeSolver(method=Heun(1).method, step_size=Own())
    with pytest.raises(ValueError, match="events need steps that are examined one by one"):
        solver.solve(FIELD, ONES, event=below_half)
