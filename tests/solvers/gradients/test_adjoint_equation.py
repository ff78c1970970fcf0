"""How the way back gathers the gradients of what the field is made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from solvers import (
    PID,
    BacksolveAdjoint,
    Bosh3,
    ClassicRK4,
    DormandPrince,
    Euler,
    HeunEuler,
    NativeSolver,
    Tsit5,
    Uniform,
)

BACK = BacksolveAdjoint()


class Field(nn.Module):
    """A network that turns fast for a while, so that steps are thrown away."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.evaluations = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.evaluations += 1
        out: Tensor = self.layers(y) * (1 + 5 * torch.exp(-200 * (t - 0.5) ** 2))
        return out


def gradients(solver: NativeSolver) -> tuple[list[Tensor], int]:
    """Of the start and the parameters; and the evaluations of the way back."""
    field = Field()
    y0 = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3).requires_grad_()
    loss = solver.solve(field, y0).y.square().sum()
    forwards = field.evaluations
    named = [y0, *field.layers.parameters(), field.unused]
    *found, nothing = torch.autograd.grad(loss, named, allow_unused=True)
    assert nothing is None
    return list(found), field.evaluations - forwards


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("kind", "tolerance"), [(HeunEuler, 1e-5), (Bosh3, 1e-7), (DormandPrince, 1e-8), (Tsit5, 1e-8)]
)
def test_with_steps_thrown_away(kind: type[NativeSolver], tolerance: float, shared: bool) -> None:
    rule = PID(tolerance, tolerance, first_step=0.4, shared=shared)
    found, _ = gradients(kind(step_size=rule, gradient=BACK))
    exact, _ = gradients(DormandPrince(step_size=PID(1e-10, 1e-11, shared=True)))
    for own, wanted in zip(found, exact, strict=True):
        torch.testing.assert_close(own, wanted, rtol=3e-4, atol=3e-4)


@pytest.mark.parametrize(
    "solver", [ClassicRK4(steps=60), DormandPrince(steps=30), Euler(step_size=Uniform(3000))]
)
def test_with_a_number_of_steps(solver: NativeSolver) -> None:
    back = type(solver)(step_size=solver.step_size, gradient=BACK)
    for own, wanted in zip(gradients(back)[0], gradients(solver)[0], strict=True):
        torch.testing.assert_close(own, wanted, rtol=5e-3, atol=5e-3)


def test_the_way_back_evaluates_the_field_once_a_stage() -> None:
    assert gradients(ClassicRK4(steps=60, gradient=BACK))[1] == 4 * 60
    assert gradients(DormandPrince(steps=30, gradient=BACK))[1] == 1 + 6 * 30


def test_a_step_that_is_thrown_away_stays_out_of_the_graph() -> None:
    pulled = 0

    def count(grad: Tensor) -> None:
        nonlocal pulled
        pulled += 1

    def field(t: Tensor, y: Tensor) -> Tensor:
        slope = -y * (1 + 20 * torch.exp(-200 * (t - 0.5) ** 2))
        slope.register_hook(count)
        return slope

    y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    solution = DormandPrince(step_size=PID(1e-6, 1e-6, first_step=0.4)).solve(field, y0)
    solution.y.sum().backward()
    assert int(solution.stats.rejected) > 0
    assert pulled == 6 * int(solution.stats.accepted)


def test_a_field_that_is_a_tensor_itself() -> None:
    speed = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    y0 = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    solver = ClassicRK4(steps=3, gradient=BACK)
    y = solver.solve(lambda t, y: speed, y0, (0.0, 2.0)).y
    for found, wanted in zip(torch.autograd.grad(y.sum(), (y0, speed)), (1.0, 2.0), strict=True):
        torch.testing.assert_close(found, torch.full_like(found, wanted))
