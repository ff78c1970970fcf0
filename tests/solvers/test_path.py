"""The path of a solve: dense=True, path(t), the steps' times and sizes; how a solution prints."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    ETDRK2,
    ETDRK4,
    PID,
    Bosh3,
    Checkpointing,
    ClassicRK4,
    DormandPrince,
    Euler,
    Event,
    ExponentialEuler,
    GradientScaled,
    Heun,
    NativeSolver,
    ParameterisedField,
    SemilinearField,
    TorchDiffEq,
    Tsit5,
    Uniform,
)

F64 = torch.float64
RATES = torch.tensor([[0.5], [2.0], [0.1], [7.0]], dtype=F64)
ONES = torch.ones(4, 1, dtype=F64)
SPAN = (0.2, 2.2)
TIMES = torch.linspace(0.2, 2.2, 9, dtype=F64)


def decay(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    return -rates * y


FIELD = ParameterisedField(decay, RATES)
LEAK = SemilinearField(ParameterisedField(lambda t, y, r: 0.3 + 0 * y, RATES), 1 / RATES)
EXACT = torch.exp(-RATES[:, 0] * (TIMES[:, None] - 0.2))
GENERAL: list[NativeSolver] = [
    Bosh3(rtol=1e-4),
    DormandPrince(rtol=1e-6),
    DormandPrince(step_size=PID(shared=True)),
    Tsit5(gradient=Checkpointing()),
    Euler(5),
    Euler(step_size=Uniform(5)),
    Heun(7),
    ClassicRK4(step_size=GradientScaled(8)),
    DormandPrince(4),
]
SEMILINEAR: list[NativeSolver] = [Euler(5), ExponentialEuler(5), ETDRK2(5), ETDRK4(rtol=1e-5)]


def path_of(solution: solvers.Solution) -> solvers.SolutionPath:
    assert solution.path is not None
    return solution.path


@pytest.mark.parametrize(
    ("solver", "field"),
    [(solver, FIELD) for solver in GENERAL] + [(solver, LEAK) for solver in SEMILINEAR],
    ids=lambda value: type(value).__name__,
)
def test_it_has_the_states_of_t_eval(solver: NativeSolver, field: Any) -> None:
    plain = solver.solve(field, ONES, SPAN, t_eval=TIMES)
    found = solver.solve(field, ONES, SPAN, dense=True)
    path = path_of(found)
    torch.testing.assert_close(path(TIMES), plain.ys, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(path(0.2), ONES, rtol=0, atol=0)
    torch.testing.assert_close(path(2.2), found.y, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(path(TIMES[3]), path(TIMES)[3], rtol=0, atol=0)
    assert plain.path is None
    torch.testing.assert_close(found.stats.nfe, plain.stats.nfe)


@pytest.mark.parametrize("solver", [Heun(7), Euler(5), Tsit5()], ids=repr)
def test_times_of_each_sample(solver: NativeSolver) -> None:
    own = SPAN[0] + 2 * torch.rand(6, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    path = path_of(solver.solve(FIELD, ONES, SPAN, dense=True))
    found = path(own)  # in any order
    assert found.shape == (6, 4, 1)
    for row in range(4):
        torch.testing.assert_close(found[:, row], path(own[:, row])[:, row], rtol=0, atol=0)


@pytest.mark.parametrize("solver", [Heun(4), DormandPrince(4)], ids=repr)
def test_a_budget_spends_what_t_eval_does(solver: NativeSolver) -> None:
    """One evaluation more at the very end, where the method has no interpolant of its own."""
    expected = 4 * solver.method.stages if isinstance(solver, Heun) else None
    found = solver.solve(FIELD, ONES, dense=True).stats.nfe
    alone = solver.solve(FIELD, ONES).stats.nfe
    assert found == (alone if expected is None else expected + 1)


def test_steps_that_all_samples_share() -> None:
    path = path_of(Heun(4).solve(FIELD, ONES, SPAN, dense=True))
    torch.testing.assert_close(path.times, torch.linspace(0.2, 2.2, 5, dtype=F64))
    torch.testing.assert_close(path.sizes, torch.full((4,), 0.5, dtype=F64))


def test_steps_of_each_sample() -> None:
    found = Tsit5().solve(FIELD, ONES, SPAN, dense=True)
    path, steps = path_of(found), found.stats.accepted
    assert isinstance(steps, Tensor)
    assert path.times.shape == (4, int(steps.max()) + 1)
    assert path.sizes.shape == (4, int(steps.max()))
    for row, count in enumerate(steps.tolist()):
        own = path.times[row]
        assert not bool(own[: count + 1].isnan().any())
        assert bool(own[count + 1 :].isnan().all())
        assert float(own[0]) == 0.2
        assert float(own[count]) == pytest.approx(2.2, abs=1e-15)
        assert bool((path.sizes[row, :count] > 0).all())
    scaled = path_of(Euler(5).solve(FIELD, ONES, SPAN, dense=True))
    assert scaled.times.shape == (4, 6)
    torch.testing.assert_close(scaled.sizes.sum(1), torch.full((4,), 2.0, dtype=F64))


@pytest.mark.parametrize("selectable", [True, False])
@pytest.mark.parametrize("solver", [DormandPrince(rtol=1e-8), Heun(400)], ids=repr)
def test_after_an_event_it_is_nan(solver: NativeSolver, selectable: bool) -> None:
    def below_half(t: Tensor, y: Tensor) -> Tensor:
        return y[:, 0] - 0.5

    event = Event(ParameterisedField(below_half) if selectable else below_half)
    found = solver.solve(FIELD, ONES, SPAN, event=event, dense=True)
    path, when = path_of(found), 0.2 + math.log(2) / RATES[:, 0]
    over = TIMES[:, None] > when
    torch.testing.assert_close(
        path(TIMES)[..., 0], torch.where(over, math.nan, EXACT), rtol=0, atol=1e-3, equal_nan=True
    )
    last = path.times.nan_to_num(nan=-1).amax(1)
    torch.testing.assert_close(last, when.clamp(max=2.2), rtol=0, atol=1e-4)
    assert found.event_time is not None
    at_event = path(found.event_time[None])[0]  # NaN where there was none
    torch.testing.assert_close(
        at_event, torch.where(found.event_time[:, None].isnan(), math.nan, found.y), equal_nan=True
    )


def test_after_a_failure_it_is_nan() -> None:
    def field(t: Tensor, y: Tensor, bad: Tensor) -> Tensor:
        return torch.where((bad == 1) & (t > 1) | (bad == 2), math.nan, -y)

    bad = torch.tensor([[0.0], [1.0], [2.0], [0.0]], dtype=F64)
    found = Tsit5().solve(
        ParameterisedField(field, bad), ONES, dense=True, throw=False, t_span=SPAN
    )
    states = path_of(found)(TIMES)[..., 0]
    expected = torch.exp(-(TIMES - 0.2))[:, None].expand(-1, 4).clone()
    expected[TIMES > 1.0, 1] = math.nan
    expected[1:, 2] = math.nan  # it is known at t0 alone
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-4, equal_nan=True)
    every = Tsit5().solve(lambda t, y: y * math.nan, ONES, dense=True, throw=False)
    assert path_of(every).times.shape == (4, 2)
    assert bool(path_of(every)(0.5).isnan().all())


@pytest.mark.parametrize("gradient", [solvers.Backpropagation(), Checkpointing()], ids=repr)
@pytest.mark.parametrize("kind", [ClassicRK4, DormandPrince])
def test_gradients(kind: type[NativeSolver], gradient: solvers.GradientMode) -> None:
    """To the initial state, the parameters and the times: y = y0 exp(-k t)."""
    solver = kind(50, gradient=gradient)
    k = torch.tensor(1.3, dtype=F64, requires_grad=True)
    y0 = ONES.clone().requires_grad_()
    t = torch.rand(5, 4, dtype=F64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    path = path_of(solver.solve(lambda t, y: -k * y, y0, dense=True))
    weights = torch.arange(20.0, dtype=F64).view(5, 4, 1)
    exact = y0 * torch.exp(-k * t[..., None])
    leaves = k, y0, t
    found = torch.autograd.grad((weights * path(t)).sum(), leaves, retain_graph=True)
    expected = torch.autograd.grad((weights * exact).sum(), leaves)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    at_end = torch.tensor(1.0, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(path(at_end).sum(), at_end)
    torch.testing.assert_close(slope.item(), -4 * 1.3 * math.exp(-1.3), rtol=1e-5, atol=0)


def test_no_graph_is_recorded_without_gradients() -> None:
    with torch.no_grad():
        path = path_of(Tsit5().solve(FIELD, ONES.clone().requires_grad_(), dense=True))
    assert not path(0.5).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("solver", [Heun(8), Euler(8), Tsit5()], ids=repr)
def test_lower_precision(solver: NativeSolver, dtype: torch.dtype) -> None:
    found = solver.solve(lambda t, y: -y, torch.ones(2, 3, dtype=dtype), dense=True)
    states = path_of(found)(torch.tensor([0.0, 0.5, 1.0]))
    assert states.dtype == dtype
    torch.testing.assert_close(states[-1], found.y)
    assert float((states[1] - math.exp(-0.5)).abs().max()) < 0.05


def test_one_system() -> None:
    y0 = torch.tensor([1.0, 0.0], dtype=F64)
    for solver in (DormandPrince(rtol=1e-8, atol=1e-9), ClassicRK4(50)):
        path = path_of(
            solver.solve(lambda t, y: torch.stack([-y[1], y[0]]), y0, (0.0, 3.0), dense=True)
        )
        assert path(1.0).shape == (2,)
        times = torch.tensor([0.0, 1.0, 2.5], dtype=F64)
        exact = torch.stack([torch.cos(times), torch.sin(times)], 1)
        torch.testing.assert_close(path(times), exact, rtol=0, atol=1e-5)
        assert path.times.ndim == 1 if solver.step_size.controlled is False else True
        with pytest.raises(ValueError, match=r"times of shape \(M,\); not at \(3, 1\)"):
            path(times[:, None])
    number = DormandPrince().solve(lambda t, y: -y, torch.tensor(1.0), dense=True)
    assert path_of(number)(0.5).shape == ()
    assert path_of(number)([0.5, 0.7]).shape == (2,)


def test_a_path_of_ones_own_formula_for_each_step() -> None:
    """Formulas that are not known to be the same are kept apart."""

    class Own(solvers.RungeKutta):
        def path(self, field: Any, y: Tensor, dt: Any, first: Tensor, result: Any) -> Any:
            inner = super().path(field, y, dt, first, result)
            formula = inner.formula

            def anew(*values: Any) -> Tensor:
                return formula(*values)

            return type(inner)(y, dt, anew, inner.values)

    own = NativeSolver(7, method=Own(Heun(1).method.tableau))  # type: ignore[attr-defined]
    found = own.solve(FIELD, ONES, SPAN, dense=True)
    plain = Heun(7).solve(FIELD, ONES, SPAN, dense=True)
    torch.testing.assert_close(path_of(found)(TIMES), path_of(plain)(TIMES))


@pytest.mark.parametrize("solver", [DormandPrince(rtol=1e-8), Heun(200)], ids=repr)
def test_backwards(solver: NativeSolver) -> None:
    field = ParameterisedField(decay, RATES[:3])
    path = path_of(solver.solve(field, ONES[:3], (2.2, 0.2), dense=True))
    exact = torch.exp(-RATES[:3, 0] * (TIMES[:, None] - 2.2))
    torch.testing.assert_close(path(TIMES)[..., 0], exact, rtol=2e-3, atol=1e-5)
    assert float(path.times.reshape(-1)[0]) == 2.2
    assert bool((path.sizes.nan_to_num(-1) < 0).all())
    with pytest.raises(ValueError, match=r"from 0\.2 to 2\.2"):
        path(2.3)


@pytest.mark.parametrize("solver", [DormandPrince(rtol=1e-9), ClassicRK4(100)], ids=repr)
def test_times_of_each_sample_and_their_gradients(solver: NativeSolver) -> None:
    """y(t) = exp(t0 - t): the end says nothing of what comes before it."""
    t0 = torch.tensor([0.0, 0.5], dtype=F64, requires_grad=True)
    t1 = torch.tensor([1.0, 3.0], dtype=F64, requires_grad=True)
    path = path_of(solver.solve(lambda t, y: -y + 0 * t, ONES[:2], (t0, t1), dense=True))
    t = torch.tensor([[0.2, 0.6], [0.9, 2.9]], dtype=F64, requires_grad=True)
    exact = torch.exp(t0 - t)
    torch.testing.assert_close(path(t)[..., 0], exact, rtol=1e-6, atol=1e-6)
    found = torch.autograd.grad(path(t).sum(), (t0, t1, t))
    expected = torch.autograd.grad(exact.sum(), (t0, t))
    torch.testing.assert_close((found[0], found[2]), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], torch.zeros(2, dtype=F64), rtol=0, atol=1e-5)
    assert path.times.shape[0] == 2
    assert path.times[:, 0].tolist() == [0.0, 0.5]


def test_structures_and_complex_numbers() -> None:
    y0 = {"a": ONES, "b": torch.ones(4, dtype=torch.complex128)}

    def field(t: Tensor, y: Any) -> Any:
        return {"a": -y["a"], "b": 1j * y["b"]}

    path = path_of(DormandPrince(rtol=1e-8).solve(field, y0, dense=True))  # type: ignore[arg-type]
    states = path([0.5, 1.0])
    assert states["a"].shape == (2, 4, 1)
    assert complex(states["b"][0, 0]) == pytest.approx(complex(math.cos(0.5), math.sin(0.5)))


def test_no_samples() -> None:
    found = Heun(3).solve(lambda t, y: -y, torch.ones(0, 3), dense=True)
    assert path_of(found)([0.2, 0.4]).shape == (2, 0, 3)


def test_under_vmap_with_a_number_of_steps() -> None:
    rates = torch.tensor([0.5, 1.5], dtype=F64)
    for solver in (Heun(5), Euler(5)):

        def states(rate: Tensor, solver: NativeSolver = solver) -> Any:
            return path_of(solver.solve(lambda t, y: -rate * y, ONES, dense=True))([0.3, 0.8])

        alone = torch.stack([states(rate) for rate in rates])
        torch.testing.assert_close(torch.vmap(states)(rates), alone)


def test_what_is_refused() -> None:
    path = path_of(Heun(3).solve(FIELD, ONES, SPAN, dense=True))
    for outside in (0.1, [0.3, 2.3], torch.full((2, 4), 5.0)):
        with pytest.raises(ValueError, match=r"within the time span, from 0\.2 to 2\.2"):
            path(outside)
    with pytest.raises(ValueError, match=r"or \(M, 4\), the times of each sample; not at \(4, 1\)"):
        path(torch.full((4, 1), 0.5))
    with pytest.raises(ValueError, match="dense must be True or False"):
        Heun(3).solve(FIELD, ONES, dense=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="torchdiffeq's methods do not show"):
        TorchDiffEq().solve(FIELD, ONES, dense=True)
    adjoint = Tsit5(gradient=solvers.BacksolveAdjoint())
    with pytest.raises(ValueError, match="BacksolveAdjoint keeps no steps"):
        adjoint.solve(FIELD, ONES.clone().requires_grad_(), dense=True)
    with torch.no_grad():
        assert adjoint.solve(FIELD, ONES, dense=True).path is not None


def test_a_solution_prints_as_one_line() -> None:
    y0 = torch.ones(4, 1)
    assert repr(Heun(3).solve(lambda t, y: -y, y0)) == (
        "Solution(y=(4, 1) float32, 4 of 4 succeeded, nfe 6, steps 3)"
    )
    text = repr(
        Tsit5().solve(
            FIELD, ONES, t_eval=[0.5], dense=True, event=Event(lambda t, y: y[:, 0] - 0.5)
        )
    )
    assert text.startswith("Solution(y=(4, 1) float64, ys=(1, 4, 1) float64, 4 of 4 succeeded, nfe")
    assert text.endswith("crossings 2, path)")
    text = repr(Tsit5().solve(FIELD, ONES))
    assert re.search(r"nfe \d+ to \d+, steps \d+ to \d+\)$", text)
    text = repr(Tsit5().solve(lambda t, y: y * math.nan, y0, throw=False))
    assert "0 of 4 succeeded, 4 NON_FINITE" in text
    one = torch.tensor([1.0, 2.0])
    assert "Solution(y=(2,) float32, succeeded, nfe" in repr(Tsit5().solve(lambda t, y: -y, one))
    pair = {"a": y0, "b": (y0,)}
    text = repr(Heun(1).solve(lambda t, y: pair, pair))  # type: ignore[arg-type, return-value]
    assert text.startswith("Solution(y={'a': (4, 1) float32, 'b': ((4, 1) float32,)}, 4 of 4")
    text = repr(Tsit5(step_size=PID(max_steps=1)).solve(lambda t, y: -y, one, throw=False))
    assert "Solution(y=(2,) float32, MAX_STEPS, nfe" in text
