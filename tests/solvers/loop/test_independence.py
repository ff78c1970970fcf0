"""Rows that depend on each other: found out before any answer is given, and refused or shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import solvers
from solvers import (
    ETDRK4,
    PID,
    DormandPrince,
    Heun,
    HeunEuler,
    ParameterisedField,
    SemilinearField,
    Tsit5,
)

F64 = torch.float64
Function = Callable[[Tensor, Tensor], Tensor]


def rows(count: int, size: int = 2) -> Tensor:
    return torch.linspace(-1, 1, count * size, dtype=F64).view(count, size)


def neighbours(t: Tensor, y: Tensor) -> Tensor:
    """A ring of coupled rows."""
    return y.roll(1, 0) - 2 * y + y.roll(-1, 0)


def one_pair(t: Tensor, y: Tensor) -> Tensor:
    """The first row looks at the last one, and no other row at any."""
    return -y + torch.cat([0.1 * y[-1:], torch.zeros_like(y[1:])])


COUPLED: dict[str, Function] = {
    "mean": lambda t, y: y.mean(0) - y,
    "sum": lambda t, y: -y * y.sum(),
    "neighbours": neighbours,
    "one pair": one_pair,
    "order": lambda t, y: y - y.flip(0),
    "normalised": lambda t, y: -y * (y - y.mean(0)) / (y.var(0) + 1),
    "largest": lambda t, y: -y * y.abs().amax(0),
    "times another": lambda t, y: y * y.roll(1, 0),
    "without a derivative": lambda t, y: (y.mean(0) - y).detach(),
    "attention": lambda t, y: torch.softmax(y @ y.t(), 1) @ y - y,
}


@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("count", [2, 3, 9, 70])
@pytest.mark.parametrize("recording", [False, True])
def test_coupled_rows_are_refused(name: str, count: int, recording: bool) -> None:
    with (
        torch.set_grad_enabled(recording),
        pytest.raises(
            ValueError, match=r"Rows of the state depend on each other .*PID\(shared=True\)"
        ),
    ):
        Tsit5().solve(COUPLED[name], rows(count))


def test_coupled_rows_are_refused_in_every_form() -> None:
    y0 = rows(4)
    module = nn.BatchNorm1d(2, dtype=F64)
    fields: list[Any] = [
        lambda t, y: module(y),
        SemilinearField(neighbours, 0.5),
        solvers.QuasilinearField(lambda t, y: (y.mean(0).expand_as(y), torch.ones_like(y)), 2.0),
    ]
    for field in fields:
        with pytest.raises(ValueError, match="depend on each other"):
            DormandPrince().solve(field, y0)
    with pytest.raises(ValueError, match="depend on each other"):
        ETDRK4(rtol=1e-4).solve(fields[1], y0)
    for mode in (solvers.Checkpointing(), solvers.BacksolveAdjoint()):
        with pytest.raises(ValueError, match="depend on each other"):
            DormandPrince(gradient=mode).solve(neighbours, y0.clone().requires_grad_())
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, pytest.raises(ValueError, match="depend on each other"):
            DormandPrince().solve(neighbours, y0.clone())
    with pytest.raises(ValueError, match="or the field gives another result each time"):
        Tsit5().solve(lambda t, y: torch.rand_like(y), y0)


INDEPENDENT: dict[str, Function] = {
    "linear": lambda t, y: y @ torch.tensor([[0.3, -1.0], [1.0, 0.2]], dtype=F64),
    "per row": lambda t, y: -y / (1 + y.square().sum(1, keepdim=True)),
    "softmax": lambda t, y: torch.softmax(y, 1) - y,
    "constant": lambda t, y: torch.ones_like(y),
    "of time alone": lambda t, y: torch.cos(3 * t).expand_as(y).clone(),
    "flat at the start": lambda t, y: -y * (t > 0.2),
    "detached": lambda t, y: -y.detach(),
    "branches": lambda t, y: torch.where(y > 0, -3 * y, torch.sin(y)),
}


@pytest.mark.parametrize("name", INDEPENDENT)
@pytest.mark.parametrize("recording", [False, True])
def test_independent_rows_are_solved_as_each_alone(name: str, recording: bool) -> None:
    field, y0 = INDEPENDENT[name], rows(9)
    with torch.set_grad_enabled(recording):
        whole = Tsit5().solve(field, y0)
    for row in (0, 4, 8):
        alone = Tsit5().solve(field, y0[row : row + 1])
        torch.testing.assert_close(whole.y[row], alone.y[0], rtol=1e-12, atol=1e-12)


def test_finding_out_is_counted_and_a_selectable_field_is_not_asked() -> None:
    calls = 0

    def decay(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return -y

    solver = HeunEuler(step_size=PID(first_step=0.1, max_steps=3))
    for field, y0, more in (
        # One at the start, four after the first step, four where the first row ends.
        (decay, rows(4), 9),
        (decay, rows(1), 0),
        (ParameterisedField(decay), rows(4), 0),
    ):
        calls = 0
        solution = solver.solve(field, y0, throw=False)
        assert torch.as_tensor(solution.stats.nfe).tolist() == [calls] * len(y0)
        # The first evaluation is that of the first step.
        assert calls == 1 + more + 5


def test_coupled_rows_with_a_number_of_steps_are_solved() -> None:
    """Where all rows have the same steps."""
    y0 = rows(4)
    expected = torch.linalg.matrix_exp(_ring(4)) @ y0
    for name in ("heun", "midpoint", "classic_rk4", "dormand_prince"):
        y = solvers.get(name, steps=200).solve(neighbours, y0).y
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def _ring(count: int) -> Tensor:
    eye = torch.eye(count, dtype=F64)
    return eye.roll(1, 0) - 2 * eye + eye.roll(-1, 0)


# ---- One step for all rows -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("kind", [HeunEuler, solvers.Bosh3, DormandPrince, Tsit5])
def test_shared_steps_solve_coupled_rows(kind: type[solvers.NativeSolver], count: int) -> None:
    y0 = rows(count)
    shapes = set()

    def field(t: Tensor, y: Tensor) -> Tensor:
        shapes.add((t.shape, y.shape))
        return neighbours(t, y)

    solution = kind(step_size=PID(1e-6, 1e-6, shared=True)).solve(field, y0, t_eval=[0.0, 0.4, 1.0])
    expected = torch.linalg.matrix_exp(_ring(count)) @ y0
    torch.testing.assert_close(solution.y, expected, rtol=1e-4, atol=1e-4)
    assert solution.ys is not None
    torch.testing.assert_close(
        solution.ys[1], torch.linalg.matrix_exp(0.4 * _ring(count)) @ y0, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(solution.ys[2], solution.y)
    assert shapes == {(torch.Size(), y0.shape)}
    assert solution.status.tolist() == [0] * count
    assert isinstance(solution.stats.nfe, int)
    # As of one system whose state holds all rows.
    one = kind(step_size=PID(1e-6, 1e-6)).solve(
        lambda t, y: neighbours(t, y.view(count, 2)).view(-1), y0.view(-1)
    )
    torch.testing.assert_close(one.y.view(count, 2), solution.y)
    assert one.stats.accepted == solution.stats.accepted


def test_shared_steps_have_gradients_and_fail_together() -> None:
    coupling = torch.tensor(0.7, dtype=F64, requires_grad=True)
    y0 = rows(3).requires_grad_()
    solver = Tsit5(step_size=PID(1e-9, 1e-9, shared=True))
    found = solver.solve(lambda t, y: coupling * neighbours(t, y), y0).y
    exact = torch.linalg.matrix_exp(coupling * _ring(3)) @ y0
    grads = (torch.autograd.grad(y.sin().sum(), (coupling, y0)) for y in (found, exact))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)

    def blows_up(t: Tensor, y: Tensor) -> Tensor:
        return neighbours(t, y) + torch.where(t > 0.5, torch.inf, 0.0)

    solution = solver.solve(blows_up, rows(3), throw=False)
    assert len(set(solution.status.tolist())) == 1
    assert solution.status[0] != 0
    assert torch.isfinite(solution.y).all()
    with pytest.raises(solvers.SolverError, match=r"3 of 3 samples \(0, 1, 2\)"):
        solver.solve(blows_up, rows(3))


def test_shared_steps_and_times_of_each_sample() -> None:
    times = torch.rand(2, 3, dtype=F64).sort(0).values
    with pytest.raises(ValueError, match=r"PID\(shared=True\) t_eval has shape \(M,\)"):
        Tsit5(step_size=PID(shared=True)).solve(neighbours, rows(3), t_eval=times)


@pytest.mark.parametrize("solver", [Heun(5), Tsit5()], ids=repr)
def test_fields_that_take_t_for_a_number(solver: solvers.NativeSolver) -> None:
    """Where every sample has a time of its own the error says what to write, and what to take."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y if t < 0.5 else y * float(t)

    if solver.step_size.controlled:
        with pytest.raises(ValueError, match=r"took t for one number .*torch\.where.*shared=True"):
            solver.solve(field, rows(3))
        solver = Tsit5(step_size=PID(shared=True))
    assert torch.isfinite(solver.solve(field, rows(3)).y).all()
