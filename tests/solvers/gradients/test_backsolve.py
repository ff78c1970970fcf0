"""The adjoint method: gradients of every tensor that the field depends on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import solvers
from solvers import ETDRK2, PID, BacksolveAdjoint, Bosh3, Checkpointing, ClassicRK4, DormandPrince
from tests.solvers.fields import liquid_field
from tests.versions import needs_compiler

TIGHT = PID(1e-10, 1e-10)


def problem() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {"weight": normal(3, 3), "bias": normal(4, 3), "y0": normal(4, 3)}
    tensors["rate"] = torch.tensor([[0.5], [1.0], [4.0], [2.0]], dtype=torch.float64)
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def slope(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return torch.tanh(y @ p["weight"] + 2 * p["bias"]) * torch.cos(3 * t) - p["rate"] * y


def gradients(solver: solvers.Solver, p: dict[str, Tensor], field: object = None) -> list[Tensor]:
    doubled = 2 * p["bias"]  # no leaf: a closure over it is what torchdiffeq's adjoint misses

    def closure(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ p["weight"] + doubled) * torch.cos(3 * t) - p["rate"] * y

    solution = solver.solve(
        closure if field is None else field,  # type: ignore[arg-type]
        p["y0"],
        (0.0, 2.0),
        t_eval=[0.0, 0.3, 1.1, 2.0],
    )
    assert solution.ys is not None
    weights = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    loss = (solution.y * weights).sum() + solution.ys.square().sum()
    return list(torch.autograd.grad(loss, list(p.values())))


@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [
        (DormandPrince(step_size=TIGHT, gradient=BacksolveAdjoint()), 1e-7),
        (ClassicRK4(steps=200, gradient=BacksolveAdjoint()), 1e-7),
        (DormandPrince(step_size=TIGHT, gradient=BacksolveAdjoint(ClassicRK4(steps=100))), 1e-5),
        (Bosh3(step_size=PID(1e-8, 1e-8), gradient=BacksolveAdjoint()), 1e-5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gradients_agree_with_those_through_the_steps(
    solver: solvers.Solver, tolerance: float
) -> None:
    p = problem()
    expected = gradients(DormandPrince(step_size=TIGHT), p)
    for found, wanted in zip(gradients(solver, p), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_gradients_of_the_arguments_of_a_field_with_compaction() -> None:
    p = problem()
    field = solvers.ParameterisedField(
        lambda t, y, bias, rate: torch.tanh(y @ p["weight"] + bias) * torch.cos(3 * t) - rate * y,
        2 * p["bias"],
        p["rate"],
    )
    expected = gradients(DormandPrince(step_size=TIGHT), p)
    found = gradients(DormandPrince(step_size=TIGHT, gradient=BacksolveAdjoint()), p, field)
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-7, atol=1e-7)


def test_parameters_of_a_module_and_of_a_liquid_field() -> None:
    module = nn.Linear(3, 3).double()
    y0 = torch.ones(2, 3, dtype=torch.float64)

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = module
            self.late = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            slope = torch.tanh(self.linear(y))
            if float(t.max()) < 0.5:
                return slope  # late is not in the graph at t0
            return slope * (1 + (t - 0.5) * self.late)

    field = Field()
    grads = []
    for gradient in (solvers.Backpropagation(), BacksolveAdjoint()):
        y = ClassicRK4(steps=100, gradient=gradient).solve(field, y0).y
        grads.append(torch.autograd.grad(y.square().sum(), list(field.parameters())))
    for ours, wanted in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-7)

    liquid = liquid_field(seed=0, batch=4, hidden=5, tau=(0.5, 2.0))
    tensors = [liquid.recurrent, liquid.drive, liquid.rate]
    for tensor in tensors:
        tensor.requires_grad_()
    state = torch.zeros(4, 5, dtype=torch.float64)
    through = DormandPrince(step_size=TIGHT).solve(liquid, state).y
    expected = torch.autograd.grad(through.square().sum(), tensors)
    back = ETDRK2(steps=400, gradient=BacksolveAdjoint(DormandPrince(step_size=TIGHT)))
    found = torch.autograd.grad(back.solve(liquid, state).y.square().sum(), tensors)
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-5)


def test_memory_does_not_grow_with_the_steps() -> None:
    weight = torch.eye(8, requires_grad=True)
    y0 = torch.ones(4, 8)

    def saved(gradient: solvers.GradientMode, steps: int) -> int:
        kept = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            ClassicRK4(steps, gradient=gradient).solve(lambda t, y: torch.tanh(y @ weight), y0)
        return kept

    assert saved(BacksolveAdjoint(), 40) == saved(BacksolveAdjoint(), 10)
    assert saved(solvers.Backpropagation(), 40) > 3 * saved(solvers.Backpropagation(), 10)


def test_a_tensor_that_comes_in_later_is_not_lost() -> None:
    """A closure's is refused on the way back; a named one has its gradient."""
    y0 = torch.ones(2, 3, dtype=torch.float64)
    late = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.full((2, 3), 0.3, dtype=torch.float64, requires_grad=True)

    def slope(t: Tensor, y: Tensor, late: Tensor) -> Tensor:
        return weight * y if float(t.max()) < 0.5 else weight * y + (t - 0.5) * late

    solver = ClassicRK4(steps=40, gradient=BacksolveAdjoint())
    y = solver.solve(lambda t, y: slope(t, y, late), y0).y
    with pytest.raises(ValueError, match=r"tensor of shape \(2, 3\) that it did not use at t0"):
        y.sum().backward()
    field = solvers.ParameterisedField(slope, late)
    grads = [
        torch.autograd.grad(mode.solve(field, y0).y.square().sum(), (late, weight))
        for mode in (solver, ClassicRK4(steps=40))
    ]
    for ours, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)


def test_a_failed_sample_leaves_the_gradients_of_the_others() -> None:
    y0 = torch.tensor([[1.0], [3.0], [0.5]], dtype=torch.float64)
    weight = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    solver = DormandPrince(step_size=TIGHT, gradient=BacksolveAdjoint())

    def slope(t: Tensor, y: Tensor) -> Tensor:
        return weight * torch.where(y > 2, math.nan, -y)

    field = solvers.ParameterisedField(lambda t, y, ones: ones * slope(t, y), torch.ones(3, 1))
    solution = solver.solve(field, y0, throw=False)
    assert solution.status.tolist() == [0, solvers.NON_FINITE, 0]
    (found,) = torch.autograd.grad(solution.y[[0, 2]].sum(), weight)
    torch.testing.assert_close(found.item(), -1.5 * math.exp(-1), rtol=1e-6, atol=0)
    y = solver.solve(slope, y0, throw=False).y
    with pytest.raises(ValueError, match="some samples failed, and the field cannot be asked for"):
        y[[0, 2]].sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on the first use of duals
def test_what_it_cannot_do_is_said() -> None:
    weight = torch.eye(2, requires_grad=True)
    y0 = torch.ones(3, 2)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y @ weight

    semilinear = solvers.SemilinearField(field, 0.5)
    with pytest.raises(ValueError, match=r"explicit Runge-Kutta method: BacksolveAdjoint\(solver="):
        ETDRK2(gradient=BacksolveAdjoint()).solve(semilinear, y0)
    solver = ClassicRK4(gradient=BacksolveAdjoint())
    y = solver.solve(field, y0).y
    with pytest.raises(
        ValueError, match=r"first derivatives only, and create_graph .*take Backprop"
    ):
        torch.autograd.grad(y.square().sum(), weight, create_graph=True)
    with pytest.raises(ValueError, match="does not work under vmap"):
        torch.func.vmap(lambda y: solver.solve(field, y).y)(y0[None])
    with pytest.raises(ValueError, match="no forward-mode derivative"), forward_ad.dual_level():
        solver.solve(field, forward_ad.make_dual(y0, y0))


@needs_compiler
def test_that_it_does_not_compile_is_said() -> None:
    solver = ClassicRK4(gradient=BacksolveAdjoint())

    def run(y: Tensor) -> Tensor:
        return solver.solve(lambda t, y: -y, y).y

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="BacksolveAdjoint solves its equation in the backward"):
        compiled(torch.ones(3, 2))


def test_by_name() -> None:
    assert solvers.get("heun", gradient="backsolve").gradient == BacksolveAdjoint()  # type: ignore[attr-defined]
    assert solvers.get("heun", gradient="checkpointing").gradient == Checkpointing()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="gradient must be one of backpropagation, checkpointing"):
        solvers.get("heun", gradient="adjoint")
