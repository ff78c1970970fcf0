"""States that are not one real tensor, arguments of the field, and tolerances of the parts."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

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
    QuasilinearField,
    SemilinearField,
    Tsit5,
)

F64 = torch.float64
MODES = [Backpropagation(), Checkpointing(), BacksolveAdjoint()]
TIGHT = DormandPrince(rtol=1e-10, atol=1e-10)


class Body(NamedTuple):
    place: Tensor
    speed: Tensor


def test_structures_go_in_and_come_out() -> None:
    y0 = {"body": Body(torch.ones(3, 2, dtype=F64), torch.zeros(3, 2)), "clock": [torch.zeros(3)]}

    def field(t: Tensor, y: Any) -> Any:
        assert t.shape in {(), (3, 1)}
        body = y["body"]
        assert isinstance(body, Body)
        assert body.speed.dtype == torch.float32
        ones = torch.ones_like(y["clock"][0])
        return {"body": Body(body.speed.double(), -body.place.float()), "clock": [ones]}

    for name in ("tsit5", "dopri5", "heun", "rk4"):
        solver = solvers.get(name).with_steps(100)
        solution: Any = solver.solve(field, y0, (0.0, 2.0), t_eval=[0.5, 2.0])
        body, clock = solution.y["body"], solution.y["clock"][0]
        assert type(body) is Body
        assert body.place.dtype == F64
        assert body.speed.dtype == clock.dtype == torch.float32
        torch.testing.assert_close(body.place, torch.full((3, 2), 2.0, dtype=F64).cos(), **near())
        torch.testing.assert_close(clock, torch.full((3,), 2.0))
        assert solution.ys["body"].place.shape == (2, 3, 2)
        torch.testing.assert_close(solution.ys["body"].speed[1], body.speed)
        assert solution.status.shape == (3,)


def near(tolerance: float = 1e-3) -> dict[str, float]:
    return {"rtol": tolerance, "atol": tolerance}


@pytest.mark.parametrize("mode", MODES, ids=repr)
def test_a_continuous_flow_with_its_density(mode: solvers.GradientMode) -> None:
    """As on one tensor with the parts beside each other, gradients too."""
    torch.manual_seed(0)
    net = nn.Linear(2, 2).double()

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            z, _ = state
            slope = torch.tanh(self.net(z)) * (1 + t)
            trace = (1 - torch.tanh(self.net(z)) ** 2) @ self.net.weight.diag() * (1 + t[..., 0])
            return slope, -trace

    def flat(t: Tensor, y: Tensor) -> Tensor:
        slope, trace = flow(t, (y[:, :2], y[:, 2]))
        return torch.cat((slope, trace[:, None]), 1)

    flow, z = Flow(), torch.linspace(-1, 1, 10, dtype=F64).view(5, 2).requires_grad_()
    solver = DormandPrince(rtol=1e-9, atol=1e-9, gradient=mode)
    found = solver.solve(flow, (z, torch.zeros(5, dtype=F64))).y
    expected = solver.solve(flat, torch.cat((z, torch.zeros(5, 1, dtype=F64)), 1)).y
    torch.testing.assert_close(found, (expected[:, :2], expected[:, 2]), **near(1e-12))
    every = (z, *flow.parameters())
    ours = torch.autograd.grad(found[0].square().sum() + found[1].sum(), every)
    other = torch.autograd.grad(expected[:, :2].square().sum() + expected[:, 2].sum(), every)
    torch.testing.assert_close(ours, other, **near(1e-9))


def test_parts_without_a_common_first_axis_are_one_system() -> None:
    """A rigid body: its attitude, and its turning."""
    y0 = (torch.eye(3, dtype=F64), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64))
    solution: Any = TIGHT.solve(lambda t, y: (-y[0] * t, y[1]), y0)
    assert solution.status.shape == ()
    torch.testing.assert_close(solution.y[0], y0[0] * torch.exp(torch.tensor(-0.5)).double())
    torch.testing.assert_close(solution.y[1], y0[1] * torch.exp(torch.tensor(1.0).double()))
    single: Any = TIGHT.solve(lambda t, y: (y[1], -y[0]), (torch.ones(()), torch.zeros(())))
    torch.testing.assert_close(single.y[0], torch.tensor(1.0).cos())


@pytest.mark.parametrize("name", solvers.names())
def test_complex_states(name: str) -> None:
    """z' = (i - 0.2) z."""
    z0 = torch.tensor([[1 + 2j, 0.5j], [0.3 - 0.1j, 1 + 0j]], dtype=torch.complex128)
    z0.requires_grad_()
    field = SemilinearField(lambda t, z: 5j * z, 5.0)
    solver = solvers.get(name)
    solver = solver.with_steps(2000 if "uler" in name else 200)
    solution = solver.solve(field, z0, (0.0, 1.5))
    expected = z0 * torch.exp(torch.tensor((1j - 0.2) * 1.5, dtype=torch.complex128))
    torch.testing.assert_close(solution.y, expected, **near(5e-3))
    ours, other = (torch.autograd.grad(y.abs().sum(), z0)[0] for y in (solution.y, expected))
    torch.testing.assert_close(ours, other, **near(5e-3))


def test_events_of_structures() -> None:
    y0 = {"x": torch.tensor([[1.0], [2.0]], dtype=F64), "v": torch.zeros(2, 1, dtype=F64)}
    ground = Event(lambda t, y: y["x"][:, 0], direction=-1)
    solution: Any = TIGHT.solve(
        lambda t, y: {"x": y["v"], "v": torch.full_like(y["x"], -9.81)}, y0, (0, 5), event=ground
    )
    torch.testing.assert_close(solution.event_time, (2 * y0["x"][:, 0] / 9.81).sqrt())
    assert float(solution.y["x"].abs().max()) < 1e-9
    assert solution.events[0].states["v"].shape == (2, 1)
    torch.testing.assert_close(solution.events[0].states, solution.y)


def test_what_is_no_state() -> None:
    solver = Tsit5()
    for y0, words in (
        ((), "at least one tensor"),
        ([1.0], r"y0\[0\] is float"),
        ({"a": torch.ones(2, dtype=torch.long)}, r"y0\['a'\] must be floating point or complex"),
        (3.0, "y0 is float"),
    ):
        with pytest.raises(ValueError, match=words):
            solver.solve(lambda t, y: y, y0)
    pair = (torch.ones(2, 3), torch.ones(2))
    for result, words in (
        (lambda t, y: y[0], "must have the structure of y0"),
        (lambda t, y: (y[0], y[1], y[1]), "must have the structure of y0"),
        (lambda t, y: (y[0], y[0]), r"field\(t, y\)\[1\] must return the shape"),
        (lambda t, y: (y[0], y[1].double()), "torch.float64"),
        (lambda t, y: (y[0], t * y[1]), r"returned \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=words):
            solver.solve(result, pair)
    with pytest.raises(ValueError, match="QuasilinearField takes one real tensor"):
        solver.solve(QuasilinearField(lambda t, y: (y, y), 1.0), pair)


def test_coupled_rows_of_a_structure_are_refused() -> None:
    with pytest.raises(ValueError, match="Rows of the state depend"):
        Tsit5().solve(lambda t, y: (y[1], y[0] - y[0].mean(0)), (torch.ones(3, 2),) * 2)


@pytest.mark.parametrize("mode", MODES, ids=repr)
def test_arguments(mode: solvers.GradientMode) -> None:
    rate = torch.tensor([0.5, 2.0], dtype=F64, requires_grad=True)
    y0 = torch.ones(3, 2, dtype=F64)
    solver = DormandPrince(rtol=1e-9, atol=1e-9, gradient=mode)
    y = solver.solve(lambda t, y, rate, sign: sign * rate * y, y0, args=(rate, -1)).y
    expected = torch.exp(-rate).expand(3, 2)
    torch.testing.assert_close(y, expected, **near(1e-7))
    ours, other = (torch.autograd.grad(x.sum(), rate)[0] for x in (y, expected))
    torch.testing.assert_close(ours, other, **near(1e-6))
    leak = SemilinearField(lambda t, y, drive: drive, 1.0)
    y = Heun(100, gradient=Checkpointing()).solve(leak, y0, args=(torch.zeros(3, 2, dtype=F64),)).y
    torch.testing.assert_close(y, torch.full_like(y0, -1.0).exp(), **near(1e-4))
    stop = Event(lambda t, y, rate: y[:, 0] - rate[0])
    solution = DormandPrince(rtol=1e-9, atol=1e-9).solve(
        lambda t, y, rate: -rate * y, y0, (0, 5), event=stop, args=(rate,)
    )
    expected = (-rate[0].log() / rate[0]).expand(3)
    torch.testing.assert_close(solution.event_time, expected, **near(1e-7))
    with pytest.raises(ValueError, match="args must be a tuple"):
        solver.solve(lambda t, y, rate: -rate * y, y0, args=rate)  # type: ignore[arg-type]


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y * torch.tensor([1.0, 5.0], dtype=y.dtype)


def test_tolerances_of_the_parts() -> None:
    """One that does not matter leaves the steps to the other."""
    y0 = torch.ones(4, 2, dtype=F64)
    loose, tight = 1e3, 1e-9

    def steps(**tolerances: Any) -> int:
        return int(torch.as_tensor(Tsit5(**tolerances).solve(decay, y0).stats.accepted).max())

    first = torch.tensor([tight, loose], dtype=F64)
    alone = Tsit5(rtol=tight, atol=tight).solve(lambda t, y: -y, y0[:, :1])
    assert steps(rtol=first, atol=first) <= int(torch.as_tensor(alone.stats.accepted).max())
    assert steps(rtol=tight, atol=tight) > 1.5 * steps(rtol=first, atol=first)
    each = torch.tensor([[tight], [loose], [loose], [loose]], dtype=F64)
    counts = Tsit5(rtol=each, atol=each).solve(ParameterisedField(decay), y0).stats.accepted
    assert isinstance(counts, Tensor)
    assert int(counts[0]) == steps(rtol=tight, atol=tight)
    assert int(counts[1:].max()) < int(counts[0]) / 2


@pytest.mark.parametrize("mode", MODES, ids=repr)
def test_tolerances_of_a_structure(mode: solvers.GradientMode) -> None:
    y0 = {"fast": torch.ones(4, 3, dtype=F64), "slow": torch.ones(4, dtype=F64, requires_grad=True)}
    rules = (
        {"fast": 1e3, "slow": 1e-9},
        {"fast": torch.tensor([1e3, 1e4, 1e5]), "slow": torch.tensor(1e-9)},
    )
    counts = []
    for rule in rules:
        solver = Tsit5(rtol=rule, atol=rule, gradient=mode)
        solution: Any = solver.solve(lambda t, y: {"fast": -5 * y["fast"], "slow": -y["slow"]}, y0)
        (grad,) = torch.autograd.grad(solution.y["slow"].sum(), y0["slow"])
        torch.testing.assert_close(grad, torch.full((4,), -1.0, dtype=F64).exp(), **near(1e-6))
        counts.append(int(solution.stats.accepted.max()))
    tight: Any = Tsit5(rtol=1e-9, atol=1e-9).solve(
        lambda t, y: {"fast": -5 * y["fast"], "slow": -y["slow"]}, y0
    )
    assert counts[0] == counts[1] < int(tight.stats.accepted.max())


def test_a_rule_with_such_tolerances_is_a_value() -> None:
    rule = PID(atol={"a": torch.tensor([1e-3, 1e-4]), "b": 1e-5})
    same = PID(atol={"b": 1e-5, "a": torch.tensor([1e-3, 1e-4])})
    assert rule == same == pickle.loads(pickle.dumps(rule))
    assert hash(rule) == hash(same)
    assert rule != PID(atol={"a": torch.tensor([1e-3, 1e-5]), "b": 1e-5})
    assert hash(PID(atol={1: 1e-3, "a": 1e-3})) == hash(PID(atol={"a": 1e-3, 1: 1e-3}))
    assert DormandPrince(step_size=rule) == DormandPrince(step_size=same)
    assert "tensor" in repr(DormandPrince(step_size=rule))


def test_parts_without_elements_and_batches_without_samples() -> None:
    for batch in (0, 1, 3):
        y0 = {"a": torch.ones(batch, 2, dtype=F64), "b": torch.ones(batch, 0)}
        field = lambda t, y: {"b": y["b"], "a": -y["a"]}  # noqa: E731
        solution: Any = TIGHT.solve(field, y0, t_eval=[0.5, 1.0])
        torch.testing.assert_close(solution.y["a"], y0["a"] * torch.tensor(-1.0).double().exp())
        assert solution.ys["b"].shape == (2, batch, 0)
        assert solution.status.shape == (batch,)
        assert TIGHT.solve(lambda t, z: 1j * z, torch.ones(batch, 2) + 0j).y.shape == (batch, 2)


def test_arguments_of_a_field_that_says_its_rows() -> None:
    """Which arguments have rows is not known: so none are dropped."""
    rates, y0 = torch.tensor([[1.0], [2.0], [30.0]], dtype=F64), torch.ones(3, 2, dtype=F64)
    each = torch.tensor([[1.0], [0.5], [0.25]], dtype=F64)
    field = ParameterisedField(lambda t, y, rate, each: -rate * each * y, rates)
    y = TIGHT.solve(field, y0, args=(each,)).y
    torch.testing.assert_close(y, torch.exp(-rates * each).expand(3, 2), **near(1e-7))


def test_tolerances_of_half_precision() -> None:
    """No finer than its rounding, also where other parts are finer, and where they are tensors."""
    for other in (torch.float16, torch.float32):
        y0 = (torch.ones(3, 2, dtype=torch.float16), torch.ones(3, 2, dtype=other))
        solver = DormandPrince(rtol=(torch.tensor([1e-8, 1e-8]), 1e-6), atol=1e-9)
        solution: Any = solver.solve(lambda t, y: (-y[0], -y[1]), y0)
        torch.testing.assert_close(solution.y[0], torch.full_like(y0[0], 0.3679), **near(2e-3))
        assert int(solution.stats.rejected.max()) <= 2


def test_tolerances_that_do_not_fit() -> None:
    y0 = torch.ones(4, 2)
    for tolerance, words in (
        (torch.ones(3), r"rtol has shape \(3,\), which does not fit a state of shape \(4, 2\)"),
        ({"a": 1.0}, "rtol has parts"),
        (torch.tensor([1.0, -1.0]), "rtol must be a positive finite number"),
        ([1e-3, "x"], r"rtol\[1\] must be"),
    ):
        with pytest.raises(ValueError, match=words):
            Tsit5(rtol=tolerance, atol=1e-3).solve(decay, y0)
    with pytest.raises(ValueError, match="rtol must be a number, a tensor, or have the structure"):
        Tsit5(rtol={"b": 1.0}).solve(lambda t, y: y, {"a": y0})
    with pytest.raises(ValueError, match="does not broadcast to a part"):
        Tsit5(rtol={"a": torch.ones(3)}).solve(lambda t, y: y, {"a": y0})
    each, y0 = torch.ones(4, 1), y0.requires_grad_()
    with pytest.raises(ValueError, match="tolerances of each sample"):
        Tsit5(rtol=each, gradient=BacksolveAdjoint()).solve(decay, y0)
    Tsit5(rtol=each, gradient=BacksolveAdjoint(Tsit5())).solve(decay, y0).y.sum().backward()
