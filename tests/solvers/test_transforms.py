"""Solves of a number of steps under torch.compile and torch.func, errors without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from liquid_ode.cells import LiquidCell, LiquidField
from solvers import (
    ETDRK2,
    ETDRK4,
    Checkpointing,
    ClassicRK4,
    DormandPrince,
    Euler,
    ExponentialEuler,
    GradientScaled,
    Heun,
    HeunEuler,
    NativeSolver,
    SemiImplicitEuler,
    SemilinearField,
    Tsit5,
    Uniform,
)
from tests.versions import VERSION, needs_compiler

SOLVERS = [
    Euler(steps=3),
    Euler(steps=3, step_size=Uniform()),
    Heun(steps=3),
    Heun(steps=3, step_size=GradientScaled()),
    ClassicRK4(steps=2),
    ExponentialEuler(steps=3),
    SemiImplicitEuler(steps=3),
    ETDRK2(steps=2),
]


def name_of(solver: NativeSolver) -> str:
    return f"{type(solver).__name__}-{type(solver.step_size).__name__}"


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Drift(nn.Module):
    """A field with parameters, for any method: semilinear."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 4, generator=generator) / 2)
        self.log_tau = nn.Parameter(torch.linspace(-1, 1, 4))

    def field(self) -> SemilinearField:
        def target(t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(y @ self.weight + t)

        return SemilinearField(target, self.log_tau.detach().exp())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.weight + t) - y * torch.exp(-self.log_tau)


def states() -> Tensor:
    return torch.linspace(-1, 1, 12).view(3, 4)


@needs_compiler
@pytest.mark.parametrize(
    ("solver", "grad"),
    [
        *((solver, False) for solver in SOLVERS),
        *((SOLVERS[index], True) for index in (0, 7)),
    ],
    ids=lambda value: name_of(value) if isinstance(value, NativeSolver) else str(value),
)
def test_compiles_in_one_graph(solver: NativeSolver, grad: bool) -> None:
    drift = Drift()
    field = (
        drift.field()
        if isinstance(solver, ExponentialEuler | SemiImplicitEuler | ETDRK2)
        else drift
    )

    def final(y: Tensor) -> Tensor:
        return solver.solve(field, y, (0.0, 0.7)).y

    backend = "aot_eager" if grad else "eager"
    compiled = torch.compile(final, fullgraph=True, backend=backend)
    y0 = states().requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        expected, found = final(y0), compiled(y0)
        torch.testing.assert_close(found, expected)
        if grad:
            leaves = y0, drift.weight
            ours = torch.autograd.grad(found.square().sum(), leaves)
            theirs = torch.autograd.grad(expected.square().sum(), leaves)
            torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(final(y0), expected)  # nothing of the compiler's is left behind


@needs_compiler
@pytest.mark.parametrize("solver", [Euler(steps=3), ExponentialEuler(steps=3)], ids=name_of)
def test_a_liquid_cell_compiles_in_one_graph(solver: NativeSolver) -> None:
    cell = LiquidCell(3, 4, solver=solver)
    x = torch.linspace(-1, 1, 6).view(2, 3)
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), cell(x))


@pytest.mark.skipif(
    VERSION < (2, 10), reason="torch 2.9 compiles no checkpoint that an object comes out of"
)
def test_checkpointing_under_a_compiler() -> None:
    drift = Drift()

    def final(y: Tensor) -> Tensor:
        return Heun(steps=3, gradient=Checkpointing()).solve(drift, y).y

    found, expected = torch.compile(final, backend="aot_eager")(states()), final(states())
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found.square().sum(), drift.weight)
    torch.testing.assert_close(ours, torch.autograd.grad(expected.square().sum(), drift.weight))


@needs_compiler
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of what it cannot trace
@pytest.mark.parametrize(
    ("form", "solver"),
    [
        ("module", DormandPrince()),
        ("closure", HeunEuler(rtol=1e-3)),
        ("closure", ETDRK4(rtol=1e-3)),
    ],
    ids=str,
)
def test_error_control_runs_beside_the_graph(form: str, solver: NativeSolver) -> None:
    """The values and gradients are those without the compiler."""
    drift, y0 = Drift(), states().requires_grad_()
    semilinear = isinstance(solver, ETDRK4)
    if form == "module":
        run: Any = Model(drift, solver, semilinear=semilinear)
    else:
        field = drift.field() if semilinear else drift

        def run(y: Tensor) -> Tensor:
            return torch.sin(solver.solve(field, torch.cos(y), (0.0, 0.7)).y)

    found, expected = torch.compile(run, backend="aot_eager")(y0), run(y0)
    torch.testing.assert_close(found, expected)
    leaves = y0, drift.weight
    ours, theirs = (torch.autograd.grad(x.square().sum(), leaves) for x in (found, expected))
    torch.testing.assert_close(ours, theirs)


class Model(nn.Module):
    """A layer, a solve and a layer."""

    def __init__(self, drift: Drift, solver: NativeSolver, *, semilinear: bool) -> None:
        super().__init__()
        self.drift, self.solver, self.semilinear = drift, solver, semilinear

    def forward(self, y: Tensor) -> Tensor:
        field = self.drift.field() if self.semilinear else self.drift
        return torch.sin(self.solver.solve(field, torch.cos(y), (0.0, 0.7)).y)


@needs_compiler
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_cell_with_error_control_under_a_compiler() -> None:
    cell = LiquidCell(3, 4, solver=Tsit5(rtol=1e-6))
    x = torch.linspace(-1, 1, 6).view(2, 3)
    found, expected = torch.compile(cell, backend="aot_eager")(x), cell(x)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(h.sum(), cell.recurrent)[0] for h in (found, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("solver", SOLVERS[:5], ids=name_of)
def test_functional_call_and_vmap_over_parameters(solver: NativeSolver) -> None:
    """An ensemble: one solve over stacked parameters, and the gradient for each."""
    drifts = [Drift() for _ in range(3)]
    with torch.no_grad():
        for index, drift in enumerate(drifts):
            drift.weight.mul_(1 + index)
    stacked, _ = torch.func.stack_module_state(drifts)  # type: ignore[arg-type]
    base = Drift()

    def loss(parameters: dict[str, Tensor], y: Tensor) -> Tensor:
        def field(t: Tensor, y: Tensor) -> Tensor:
            return torch.func.functional_call(base, parameters, (t, y))

        return solver.solve(field, y).y.square().sum()

    losses = torch.func.vmap(loss, in_dims=(0, None))(stacked, states())
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(stacked, states())
    for index, drift in enumerate(drifts):
        expected = solver.solve(drift, states()).y.square().sum()
        torch.testing.assert_close(losses[index], expected)
        (theirs,) = torch.autograd.grad(expected, drift.weight)
        torch.testing.assert_close(gradients["weight"][index], theirs)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on the first use of jvp
@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_forward_and_backward_derivatives_agree(solver: NativeSolver) -> None:
    generator = torch.Generator().manual_seed(0)
    recurrent, drive = (torch.randn(4, 4, generator=generator, dtype=torch.float64) for _ in "ab")
    rate = torch.rand(4, 4, generator=generator, dtype=torch.float64) + 0.5

    def final(y: Tensor) -> Tensor:
        return solver.solve(LiquidField(recurrent, drive, rate), y).y

    y0 = torch.linspace(-1, 1, 16, dtype=torch.float64).view(4, 4)
    tangent = torch.ones_like(y0)
    value, slope = torch.func.jvp(final, (y0,), (tangent,))
    torch.testing.assert_close(value, final(y0))
    jacobian = torch.func.jacrev(final)(y0).sum((2, 3))
    torch.testing.assert_close(slope, jacobian)


@pytest.mark.parametrize("solver", SOLVERS, ids=name_of)
def test_inference_mode_and_afterwards(solver: NativeSolver) -> None:
    drift = Drift()
    field = (
        drift.field()
        if isinstance(solver, ExponentialEuler | SemiImplicitEuler | ETDRK2)
        else drift
    )
    with torch.inference_mode():
        first = solver.solve(field, states()).y
    y0 = states().requires_grad_()
    y = solver.solve(field, y0).y
    torch.testing.assert_close(y.detach(), first.clone())
    (grad,) = torch.autograd.grad(y.sum(), y0)
    assert torch.isfinite(grad).all()
    with torch.no_grad():
        torch.testing.assert_close(solver.solve(field, states()).y, y)


@needs_compiler
def test_a_field_with_a_parameter_for_its_tau_is_made_in_a_compiled_model() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tau = nn.Parameter(torch.tensor([0.5, 1.0, 2.0, 4.0]))
            self.solver = ExponentialEuler(3)

        def forward(self, y: Tensor) -> Tensor:
            field = SemilinearField(lambda t, y: torch.cos(y), self.tau)
            return self.solver.solve(field, y).y

    model = Model()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(states()), model(states()))
