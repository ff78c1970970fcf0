"""Gradients of a solve: against finite differences, and the hand-written against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import solvers
from liquid_ode.cells import LiquidField
from liquid_ode.cells.liquid.cell import VectorTarget
from solvers import Euler, ExponentialEuler, SemiImplicitEuler, Uniform
from tests.solvers.fields import is_taped

TAPED = [Euler(steps=4, step_size=Uniform()), ExponentialEuler(steps=3), SemiImplicitEuler(steps=3)]


def liquid_tensors(dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    rate = 0.2 + normal(5, 4).abs()
    return tuple(x.requires_grad_() for x in (normal(4, 4), normal(5, 4), rate, normal(5, 4)))


def graph_solve(solver: solvers.Solver, field: LiquidField, h0: Tensor) -> Tensor:
    """The same solve by autograd: a plain semilinear field has no hand-written derivative."""
    plain = solvers.SemilinearField(field.target.__call__, 1 / field.rate)
    return solver.solve(plain, h0).y


@pytest.mark.parametrize("solver", TAPED, ids=lambda solver: type(solver).__name__)
def test_hand_written_gradient_by_finite_differences(solver: solvers.Solver) -> None:
    def solve(recurrent: Tensor, drive: Tensor, rate: Tensor, h0: Tensor) -> Tensor:
        return solver.solve(LiquidField(recurrent, drive, rate), h0).y

    tensors = liquid_tensors()
    assert is_taped(solve(*tensors))  # it is the path under test
    assert torch.autograd.gradcheck(solve, tensors)
    assert torch.autograd.gradgradcheck(solve, tensors)


@pytest.mark.parametrize("solver", [*TAPED, Euler(steps=4)], ids=repr)
@pytest.mark.parametrize("needed", [(0, 1, 2, 3), (1,), (3,), (0, 2)])
def test_hand_written_gradient_is_autograds(
    solver: solvers.Solver, needed: tuple[int, ...]
) -> None:
    tensors = [
        tensor if index in needed else tensor.detach()
        for index, tensor in enumerate(liquid_tensors())
    ]
    recurrent, drive, rate, h0 = tensors
    wanted = [tensors[index] for index in needed]
    field = LiquidField(recurrent, drive, rate)
    weights = torch.linspace(-1, 1, 20, dtype=torch.float64).view(5, 4)
    taped = torch.autograd.grad((weights * solver.solve(field, h0).y).sum(), wanted)
    graph = torch.autograd.grad((weights * graph_solve(solver, field, h0)).sum(), wanted)
    for ours, theirs in zip(taped, graph, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradient_of_a_sample_that_takes_no_time_is_finite() -> None:
    recurrent, drive, _, h0 = liquid_tensors()
    rate = torch.zeros(5, 4, dtype=torch.float64, requires_grad=True)
    y = Euler(steps=3).solve(LiquidField(recurrent, drive, rate), h0).y
    (grad,) = torch.autograd.grad(y.sum(), rate)
    expected = torch.tanh(h0 @ recurrent.t() + drive) - h0
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("solver", [*TAPED, Euler(steps=4)], ids=repr)
def test_vmap_and_per_sample_gradients(solver: solvers.Solver) -> None:
    recurrent, drive, rate, h0 = (tensor.detach() for tensor in liquid_tensors())

    def final(state: Tensor) -> Tensor:
        return solver.solve(LiquidField(recurrent, drive, rate), state).y

    states = torch.stack([h0, 2 * h0])
    expected = torch.stack([final(h0), final(2 * h0)])
    torch.testing.assert_close(torch.func.vmap(final)(states), expected)

    def energy(state: Tensor) -> Tensor:
        return final(state).square().sum()

    grads = torch.func.vmap(torch.func.grad(energy))(states)
    (single,) = torch.autograd.grad(energy(h0.requires_grad_()), h0)
    torch.testing.assert_close(grads[0], single)


@pytest.mark.parametrize(
    "rate", [2.0, torch.full((4,), 2.0, dtype=torch.float64)], ids=["float", "row"]
)
def test_a_rate_that_is_not_one_of_each_element_goes_by_autograd(rate: Tensor | float) -> None:
    recurrent, drive, _, h0 = liquid_tensors()
    tau = 1 / rate
    field = solvers.SemilinearField(VectorTarget(recurrent, drive), tau)
    y = Euler(steps=3).solve(field, h0).y
    assert not is_taped(y)
    each = torch.full_like(drive, 2.0)
    expected = Euler(steps=3).solve(LiquidField(recurrent, drive, each), h0).y
    torch.testing.assert_close(y, expected)
    found, wanted = (torch.autograd.grad(x.sin().sum(), recurrent)[0] for x in (y, expected))
    torch.testing.assert_close(found, wanted)
