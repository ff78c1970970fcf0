"""Times as values: gradients to them, backwards, and of each sample."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import solvers
from solvers import (
    PID,
    Backpropagation,
    BacksolveAdjoint,
    Checkpointing,
    DormandPrince,
    Event,
    Heun,
    ParameterisedField,
    SemilinearField,
    Tsit5,
)

F64 = torch.float64
MODES = [Backpropagation(), Checkpointing(), BacksolveAdjoint()]
SEMILINEAR = {"exponential_euler", "semi_implicit_euler", "etdrk2", "etdrk4"}
GENERAL = [name for name in solvers.names() if name not in SEMILINEAR]


def swing(t: Tensor, y: Tensor) -> Tensor:
    """dy/dt = y cos t: y exp(sin t - sin t0)."""
    return y * torch.cos(t)


def exact(y0: Tensor, t0: Tensor, t: Tensor) -> Tensor:
    return y0 * torch.exp(torch.sin(t) - torch.sin(t0))


def accurate(name: str) -> solvers.Solver:
    if "steps" in solvers.options(name) and solvers.options(name)["steps"]:
        return solvers.get(name, steps=400)
    tight = 1e-6 if name == "heun_euler" else 1e-9
    return solvers.get(name, rtol=tight, atol=tight)


def loose(name: str) -> float:
    return 2e-2 if "euler" in name else 2e-4


@pytest.mark.parametrize("mode", MODES, ids=repr)
def test_the_gradient_to_the_end_is_the_derivative_there(mode: solvers.GradientMode) -> None:
    t1 = torch.tensor(0.5, dtype=F64, requires_grad=True)
    solver = DormandPrince(rtol=1e-10, atol=1e-10, gradient=mode)
    y = solver.solve(lambda t, y: -2 * y, torch.ones(1, 1, dtype=F64), (0.0, t1)).y
    (slope,) = torch.autograd.grad(y.sum(), t1)
    assert float(slope) == pytest.approx(-2 * math.exp(-1), abs=1e-8)


@pytest.mark.parametrize("name", GENERAL)
def test_gradients_to_all_times_of_every_solver(name: str) -> None:
    t0 = torch.tensor(0.2, dtype=F64, requires_grad=True)
    t1 = torch.tensor(1.4, dtype=F64, requires_grad=True)
    asked = torch.tensor([0.2, 0.7, 1.4], dtype=F64, requires_grad=True)
    y0 = torch.tensor([[1.0, -0.5], [0.3, 2.0]], dtype=F64)
    weights = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=F64)

    def loss(y: Tensor, ys: Tensor) -> Tensor:
        return (y * weights).sum() + (ys * weights).sum((1, 2)).dot(ys.new_tensor([1.0, 2.0, 3.0]))

    solution = accurate(name).solve(swing, y0, (t0, t1), t_eval=asked)
    assert solution.ys is not None
    found = torch.autograd.grad(loss(solution.y, solution.ys), (t0, t1, asked))
    ys = torch.stack([exact(y0, t0, t) for t in asked])
    expected = torch.autograd.grad(loss(exact(y0, t0, t1), ys), (t0, t1, asked))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=loose(name), atol=loose(name))


@pytest.mark.parametrize(
    "name",
    ["uniform_euler", "heun", "classic_rk4", "exponential_euler", "rosenbrock23", "rodas5p"],
)
def test_they_are_those_of_the_numbers(name: str) -> None:
    """With a budget of steps to rounding, also of second order, whatever the steps' error."""
    solver, y0 = solvers.get(name, steps=3), torch.tensor([[1.0, -0.5]], dtype=F64)
    field: solvers.VectorField = swing
    if name in SEMILINEAR:
        field = SemilinearField(lambda t, y: swing(t, y) / 2 + y, 0.5)

    def ends(t0: Tensor, t1: Tensor, between: Tensor) -> tuple[Tensor, Tensor]:
        solution = solver.solve(field, y0, (t0, t1), t_eval=between)
        assert solution.ys is not None
        return solution.y, solution.ys

    times = [torch.tensor(t, dtype=F64, requires_grad=True) for t in (0.2, 1.4)]
    between = torch.tensor([0.5, 0.9], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(ends, (*times, between))
    assert torch.autograd.gradgradcheck(lambda a, b: ends(a, b, between.detach())[0], times)


@pytest.mark.parametrize("name", GENERAL)
def test_backwards_after_forwards_returns(name: str) -> None:
    y0 = torch.tensor([[1.0, -0.5], [0.3, 2.0]], dtype=F64)
    solver = accurate(name)
    there = solver.solve(swing, y0, (0.2, 1.4)).y
    back = solver.solve(swing, there, (1.4, 0.2), t_eval=[1.4, 0.9, 0.2])
    torch.testing.assert_close(back.y, y0, rtol=loose(name), atol=loose(name))
    assert back.ys is not None
    torch.testing.assert_close(back.ys[0], there, rtol=loose(name), atol=loose(name))
    t0, t = torch.tensor(0.2, dtype=F64), torch.tensor(0.9, dtype=F64)
    torch.testing.assert_close(back.ys[1], exact(y0, t0, t), rtol=loose(name), atol=loose(name))
    with pytest.raises(ValueError, match="decreasing where that runs backwards"):
        solver.solve(swing, there, (1.4, 0.2), t_eval=[0.2, 0.9])


@pytest.mark.parametrize("name", GENERAL)
def test_a_span_of_each_sample(name: str) -> None:
    """Forwards, backwards and not at all, as each alone."""
    y0 = torch.tensor([[1.0, -0.5], [0.3, 2.0], [0.7, 0.1]], dtype=F64)
    t0 = torch.tensor([0.2, 1.0, 0.4], dtype=F64, requires_grad=True)
    t1 = torch.tensor([1.4, 0.5, 0.4], dtype=F64, requires_grad=True)
    rates = torch.tensor([[1.0], [2.0], [0.5]], dtype=F64)
    field = ParameterisedField(lambda t, y, rate: rate * y * torch.cos(t), rates)
    y = accurate(name).solve(field, y0, (t0, t1)).y
    expected = y0 * torch.exp(rates * (torch.sin(t1) - torch.sin(t0))[:, None])
    torch.testing.assert_close(y, expected, rtol=loose(name), atol=loose(name))
    found = torch.autograd.grad(y.sum(), (t0, t1))
    for one, other in zip(found, torch.autograd.grad(expected.sum(), (t0, t1)), strict=True):
        torch.testing.assert_close(one, other, rtol=loose(name), atol=2 * loose(name))


@pytest.mark.parametrize("mode", MODES, ids=repr)
def test_times_of_each_sample_within_spans_of_each(mode: solvers.GradientMode) -> None:
    t0 = torch.tensor([0.2, 1.0], dtype=F64, requires_grad=True)
    t1 = torch.tensor([1.4, -0.5], dtype=F64, requires_grad=True)
    asked = torch.tensor([[0.3, 0.9], [0.5, -0.2], [1.4, -0.5]], dtype=F64, requires_grad=True)
    y0 = torch.tensor([[1.0, -0.5], [0.3, 2.0]], dtype=F64, requires_grad=True)
    rate = torch.tensor(1.5, dtype=F64, requires_grad=True)
    solver = DormandPrince(rtol=1e-10, atol=1e-10, gradient=mode)
    solution = solver.solve(lambda t, y: rate * swing(t, y), y0, (t0, t1), t_eval=asked)
    assert solution.ys is not None
    gone = torch.sin(torch.cat([asked, t1[None]])) - torch.sin(t0)
    expected = y0 * torch.exp(rate * gone)[..., None]
    torch.testing.assert_close(solution.ys, expected[:-1], rtol=1e-7, atol=1e-7)
    weights = torch.linspace(-1, 2, expected.numel(), dtype=F64).view_as(expected)
    ours = (torch.cat([solution.ys, solution.y[None]]) * weights).sum()
    every = (y0, rate, t0, t1, asked)
    for one, other in zip(
        torch.autograd.grad(ours, every),
        torch.autograd.grad((expected * weights).sum(), every),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_sample_that_is_done_may_blow_up_later() -> None:
    """y' = y^2 from 1 is infinite at 1."""
    y0 = torch.tensor([[1.0], [0.1]], dtype=F64)
    t1 = torch.tensor([0.5, 5.0], dtype=F64)
    solution = Tsit5(rtol=1e-8, atol=1e-8).solve(
        ParameterisedField(lambda t, y: y * y), y0, (0.0, t1)
    )
    expected = torch.tensor([[2.0], [0.2]], dtype=F64)
    torch.testing.assert_close(solution.y, expected, rtol=1e-6, atol=0)
    steps = solution.stats.accepted
    assert isinstance(steps, Tensor)
    assert int(steps.max()) < 60


def test_an_empty_span_is_the_start() -> None:
    t = torch.tensor(0.3, dtype=F64, requires_grad=True)
    y0 = torch.tensor([[1.0, 2.0]], dtype=F64)
    for solver in (Heun(2), Tsit5(), solvers.get("dopri5")):
        y = solver.solve(swing, y0, (0.3, t), t_eval=[0.3, 0.3])
        assert y.ys is not None
        torch.testing.assert_close(y.ys, y0.expand(2, 1, 2))
        (slope,) = torch.autograd.grad(y.y.sum(), t)
        assert float(slope) == pytest.approx(3 * math.cos(0.3))


def test_times_within_an_empty_span() -> None:
    """It has one time; and no gradient to it, which would be lost."""
    y0, t = torch.ones(2, 1, dtype=F64), torch.tensor([0.4], dtype=F64, requires_grad=True)
    t0, t1 = torch.tensor([0.0, 0.4], dtype=F64), torch.tensor([1.0, 0.4], dtype=F64)
    ys = Tsit5(rtol=1e-9, atol=1e-9).solve(swing, y0, (t0, t1), t_eval=[0.4]).ys
    assert ys is not None
    torch.testing.assert_close(ys.flatten(), exact(y0, t0[:, None], t1[1]).flatten())
    with pytest.raises(ValueError, match="within the time span"):
        Tsit5().solve(swing, y0, (t0, t1), t_eval=torch.tensor([[0.4, 0.5]]))
    for span, asked in (((t0, t1), t), ((0.4, 0.4), t), ((t[0], t[0]), [0.4])):
        with pytest.raises(ValueError, match="do not have where t0 = t1"):
            Tsit5().solve(swing, y0, span, t_eval=asked)


@pytest.mark.parametrize("mode", MODES, ids=repr)
def test_asked_times_reach_the_field_as_those_of_steps_do(mode: solvers.GradientMode) -> None:
    """With axes under error control: y' = W [y, t] has them to join."""
    weight = torch.tensor([[0.1, 0.5], [-0.5, 0.1], [1.0, 0.2]], dtype=F64)
    asked = torch.tensor([0.2, 0.7], dtype=F64, requires_grad=True)
    y0 = torch.tensor([[1.0, 0.0], [0.5, -1.0]], dtype=F64, requires_grad=True)
    solver = DormandPrince(rtol=1e-10, atol=1e-10, gradient=mode)
    field = lambda t, y: torch.cat([y, t], 1) @ weight  # noqa: E731
    ys = solver.solve(field, y0, t_eval=asked).ys
    assert ys is not None
    (slopes,) = torch.autograd.grad(ys.sum(), asked)
    times = asked.detach()[:, None, None].expand(2, 2, 1)
    expected = (torch.cat([ys.detach(), times], 2) @ weight).sum((1, 2))
    torch.testing.assert_close(slopes, expected, rtol=1e-6, atol=1e-6)


def test_a_leak_in_times_of_its_own() -> None:
    """Semilinear fields stay so, forwards; backwards their leak is refused by name."""
    t1 = torch.tensor([0.5, 1.5], dtype=F64, requires_grad=True)
    y0 = torch.tensor([[1.0], [0.3]], dtype=F64)
    field = SemilinearField(lambda t, y: torch.full_like(y, 0.25), 0.5)
    expected = 0.25 + (y0 - 0.25) * torch.exp(-t1 / 0.5)[:, None]
    for name in ("exponential_euler", "etdrk2", "etdrk4"):
        y = solvers.get(name, steps=4).solve(field, y0, (0.0, t1)).y
        torch.testing.assert_close(y, expected)
        found, other = (torch.autograd.grad(x.sum(), t1)[0] for x in (y, expected))
        torch.testing.assert_close(found, other)
        expected = 0.25 + (y0 - 0.25) * torch.exp(-t1 / 0.5)[:, None]
        with pytest.raises(ValueError, match="backwards"):
            solvers.get(name).solve(field, y0, (1.0, 0.0))
    with pytest.raises(ValueError, match="it was given function"):
        solvers.get("etdrk2").solve(swing, y0, (0.0, t1))
    back = DormandPrince(rtol=1e-9, atol=1e-9).solve(field, expected.detach(), (t1, 0.0)).y
    torch.testing.assert_close(back, y0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES, ids=repr)
def test_a_module_backwards(mode: solvers.GradientMode) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(self.net(y)) * (1 + t)

    flow, y0 = Flow(), torch.linspace(-1, 1, 12, dtype=F64).view(4, 3)
    solver = DormandPrince(rtol=1e-9, atol=1e-9, gradient=mode)
    y = solver.solve(flow, y0, (1.0, 0.2)).y
    negated = DormandPrince(rtol=1e-9, atol=1e-9).solve(lambda s, y: -flow(1 - s, y), y0, (0, 0.8))
    torch.testing.assert_close(y, negated.y, rtol=1e-8, atol=1e-8)
    parameters = list(flow.parameters())
    ours, others = (torch.autograd.grad(x.square().sum(), parameters) for x in (y, negated.y))
    torch.testing.assert_close(ours, others, rtol=1e-6, atol=1e-7)


def test_events_backwards_and_in_times_of_each_sample() -> None:
    t0 = torch.tensor([0.0, 2.0], dtype=F64, requires_grad=True)
    y0 = torch.ones(2, 1, dtype=F64)
    stop = Event(lambda t, y: y[:, 0] - 2.0)
    solution = Tsit5(rtol=1e-9, atol=1e-9).solve(
        lambda t, y: (2 - torch.cos(0 * t)) * y * (1 - 2 * (t0[:, None] > 1)),
        y0,
        (t0, torch.tensor([3.0, -3.0], dtype=F64)),
        event=stop,
    )
    assert solution.event_time is not None
    expected = torch.tensor([math.log(2), 2 - math.log(2)], dtype=F64)
    torch.testing.assert_close(solution.event_time, expected, rtol=0, atol=1e-6)
    assert solution.events[0].samples.tolist() == [0, 1]
    torch.testing.assert_close(solution.events[0].times, solution.event_time)
    for times in (solution.event_time, solution.events[0].times):
        (slope,) = torch.autograd.grad(times.sum(), t0, retain_graph=True)
        torch.testing.assert_close(slope, torch.ones(2, dtype=F64), rtol=0, atol=1e-6)


def test_times_that_scipy_has_no_gradient_to() -> None:
    """Where the parameters' would be zero beside it."""
    t = torch.tensor([0.5], dtype=F64, requires_grad=True)
    solver = solvers.get("torchdiffeq:scipy_solver")
    with pytest.raises(ValueError, match="scipy_solver leaves torch"):
        solver.solve(swing, torch.ones(1, 1, dtype=F64), t_eval=t)


def test_times_that_are_none() -> None:
    y0, solver = torch.ones(2, 3), Tsit5()
    for span, words in (
        ((0.0,), "two times"),
        ("ab", "number or a tensor"),
        ((0.0, math.nan), "finite"),
        ((0.0, torch.tensor(math.inf)), "finite"),
        ((0.0, torch.ones(3)), r"shape \(2,\), one for each sample, not \(3,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            solver.solve(swing, y0, span)
    with pytest.raises(ValueError, match="one number, not"):
        solver.solve(swing, torch.ones(3), (0.0, torch.ones(3)))
    with pytest.raises(ValueError, match="within the time span"):
        solver.solve(swing, y0, (0.0, torch.tensor([1.0, 0.5])), t_eval=[0.8])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on the first use of jvp
def test_forward_mode_and_functions_of_the_end() -> None:
    y0, solver = torch.ones(1, 1, dtype=F64), Heun(50)

    def end(t1: Tensor) -> Tensor:
        return solver.solve(lambda t, y: -2 * y, y0, (0.0, t1)).y.sum()

    t1 = torch.tensor(0.5, dtype=F64)
    for slope in (
        torch.func.grad(end)(t1),
        torch.func.jvp(end, (t1,), (torch.ones_like(t1),))[1],
        torch.func.jacrev(end)(t1),
    ):
        assert float(slope) == pytest.approx(-2 * math.exp(-1), abs=1e-3)
    second = torch.func.grad(torch.func.grad(end))(t1)
    assert float(second) == pytest.approx(4 * math.exp(-1), abs=5e-3)
    many = torch.tensor([0.3, -0.2], dtype=F64)  # whose values vmap hides
    for found, factor in ((torch.func.vmap(end), 1), (torch.func.vmap(torch.func.grad(end)), -2)):
        torch.testing.assert_close(found(many), factor * torch.exp(-2 * many), rtol=0, atol=1e-3)
    leak = SemilinearField(lambda t, y: y / 2, 0.5)
    for what, words in (
        (lambda t: solvers.ExponentialEuler(5).solve(leak, y0, (0, t)), "backwards"),
        (lambda t: solver.solve(swing, y0, (0, t), t_eval=[0.1]), "vmap hides"),
        (lambda t: Tsit5().solve(swing, y0, (0, t)), "vmap"),
    ):
        with pytest.raises(ValueError, match=words):
            torch.func.vmap(lambda t, what=what: what(t).y)(many)


def test_shared_steps_take_gradients_of_times() -> None:
    t1 = torch.tensor(0.5, dtype=F64, requires_grad=True)
    asked = torch.tensor([0.1, 0.4], dtype=F64, requires_grad=True)
    solver = DormandPrince(step_size=PID(1e-10, 1e-10, shared=True))
    solution = solver.solve(lambda t, y: -2 * y, torch.ones(3, 1, dtype=F64), (0, t1), t_eval=asked)
    assert solution.ys is not None
    slopes = torch.autograd.grad(solution.y.sum() + solution.ys.sum(), (t1, asked))
    expected = [-6 * torch.exp(-2 * t.detach()) for t in (t1, asked)]
    torch.testing.assert_close(list(slopes), expected, rtol=1e-5, atol=1e-6)
