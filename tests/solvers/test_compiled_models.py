"""Solvers in models under torch.compile: made there, and run beside the graph where need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import solvers
from liquid_ode import LiquidCell, LiquidRNN
from solvers import (
    PID,
    BacksolveAdjoint,
    Bosh3,
    Checkpointing,
    ClassicRK4,
    DormandPrince,
    Euler,
    Event,
    GradientScaled,
    Heun,
    NativeSolver,
    RungeKutta,
    Solver,
    Tsit5,
    Uniform,
)
from tests.solvers.own_methods import KUTTA3, Kutta3
from tests.solvers.own_rules import Graded, GradedHeun
from tests.versions import needs_compiler

pytestmark = [needs_compiler, pytest.mark.filterwarnings("ignore::UserWarning")]  # torch's own


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Model(nn.Module):
    """A layer, a solve by a solver that is made or found for it, and a layer."""

    def __init__(self, make: Callable[[], Solver], **asked: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.slope, self.after = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.make, self.asked = make, asked

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.slope(y)) - y

    def forward(self, x: Tensor) -> Tensor:
        solution = self.make().solve(self.field, self.before(x), (0.0, 1.5), **self.asked)
        states = solution.y if solution.ys is None else solution.ys.sum(0)
        y: Tensor = self.after(states)
        return y


X = torch.linspace(-1.0, 1.0, 20).view(5, 4)


def check_alike(model: nn.Module, x: Tensor, *, grad: bool = True, **compiling: Any) -> None:
    """Values and gradients are those without the compiler."""
    compiled = torch.compile(model, backend="aot_eager", **compiling)
    with torch.set_grad_enabled(grad):
        found, expected = compiled(x), model(x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        if grad:
            leaves = list(model.parameters())
            ours, theirs = (
                torch.autograd.grad(y.square().sum(), leaves) for y in (found, expected)
            )
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


MADE: dict[str, Callable[[], Solver]] = {
    "euler": lambda: Euler(3),
    "defaults": Heun,
    "rule": lambda: Euler(step_size=Uniform(3)),
    "rule of slopes": lambda: Heun(step_size=GradientScaled(3, sharpness=0.4)),
    "pair with a budget": lambda: DormandPrince(steps=3),
    "checkpointing": lambda: Heun(steps=3, gradient=Checkpointing()),
    "method": lambda: NativeSolver(steps=3, method=RungeKutta(KUTTA3.tableau)),
    "own class": lambda: Kutta3(steps=3),
    "own rule": lambda: Heun(step_size=Graded(3)),
    "own class and rule": lambda: GradedHeun(3),
    "by name": lambda: solvers.get("heun", steps=3),
    "other steps": lambda: ClassicRK4(5).with_steps(2),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_solver_is_made_within_one_graph(make: Callable[[], Solver]) -> None:
    check_alike(Model(make), X, fullgraph=True)


@pytest.mark.parametrize("make", [lambda: ClassicRK4(3), lambda: DormandPrince(steps=3)])
def test_states_on_the_way_within_one_graph(make: Callable[[], Solver]) -> None:
    check_alike(Model(make, t_eval=[0, 0.2, 0.7, 1.5]), X, fullgraph=True)


CONTROLLED: dict[str, Callable[[], Solver]] = {
    "made": DormandPrince,
    "made with tolerances": lambda: Tsit5(rtol=1e-4, atol=1e-4),
    "made with a rule": lambda: Bosh3(step_size=PID(1e-4, max_steps=500)),
    "shared": lambda: DormandPrince(step_size=PID(shared=True)),
    "checkpointing": lambda: DormandPrince(gradient=Checkpointing()),
    "adjoint": lambda: DormandPrince(gradient=BacksolveAdjoint()),
    "compiled": lambda: DormandPrince(compiled=True),
    "by name": lambda: solvers.get("tsit5", rtol=1e-4),
}


@pytest.mark.parametrize("make", CONTROLLED.values(), ids=CONTROLLED)
def test_error_control_runs_beside_the_graph(make: Callable[[], Solver]) -> None:
    check_alike(Model(make), X)
    kept = make()  # as a model has it that is given its solver
    check_alike(Model(lambda: kept), X)


@pytest.mark.parametrize(
    "asked",
    [
        {"t_eval": [0.5, 1.5]},
        {"t_eval": torch.tensor([0.5, 1.5])},
        {"event": Event(lambda t, y: y[:, 0] - 10.0)},
        {"throw": False},
    ],
    ids=["list", "tensor", "event", "throw"],
)
def test_whatever_is_asked_of_it(asked: dict[str, Any]) -> None:
    check_alike(Model(DormandPrince, **asked), X)


def test_a_batch_of_another_size_and_no_gradient() -> None:
    model = Model(DormandPrince)
    for x in (X, X[:3], X.repeat(3, 1)):
        check_alike(model, x, grad=False)
        check_alike(model, x, dynamic=True)


def test_the_adjoint_and_torchdiffeq_run_beside_the_graph() -> None:
    for make in (
        lambda: Heun(4, gradient=BacksolveAdjoint()),
        lambda: solvers.get("dopri5"),
        lambda: solvers.get("rk4"),
    ):
        torch.compiler.reset()
        check_alike(Model(make), X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (DormandPrince, r"as many steps as its data ask for.*DormandPrince\(steps=20\)"),
        (lambda: Heun(4, gradient=BacksolveAdjoint()), "BacksolveAdjoint solves its equation in"),
        (lambda: solvers.get("dopri5"), r"code of torchdiffeq.*ClassicRK4\(steps=20\)"),
    ],
    ids=["error control", "adjoint", "torchdiffeq"],
)
def test_one_graph_for_what_no_graph_can_hold(make: Callable[[], Solver], message: str) -> None:
    compiled = torch.compile(Model(make), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=f"(?s){message}"):  # of a class of torch's own
        compiled(X)


def test_cells_with_error_control() -> None:
    cell = LiquidCell(4, 3, solver=DormandPrince())
    check_alike(cell, X)
    with pytest.raises(Exception, match="as many steps as its data ask for"):
        torch.compile(cell, backend="eager", fullgraph=True)(X)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = LiquidRNN(4, 3, solver=DormandPrince(rtol=1e-4))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.rnn.last(x)[0]
            return y

    check_alike(Last(), X.view(1, 5, 4))


def test_training_goes_on_beside_the_graph() -> None:
    """Steps of an optimiser, with the same losses as without the compiler."""
    losses = []
    for compiling in (False, True):
        model = Model(DormandPrince)
        run = torch.compile(model, backend="aot_eager") if compiling else model
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            loss = run(X).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss))
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-5)
