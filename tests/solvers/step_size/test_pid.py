"""The PID controller: its formula, its bounds, its options, scipy beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import solvers
from solvers import (
    PID,
    STEP_UNDERFLOW,
    Bosh3,
    DormandPrince,
    Euler,
    GradientScaled,
    Heun,
    HeunEuler,
    NativeSolver,
    SolverError,
    Tsit5,
    Uniform,
)

F64 = torch.float64


def by_hand(
    f: Callable[[float, float], float], y: float, pid: PID, first: float
) -> tuple[float, int, int]:
    """Heun-Euler 2(1) over (0, 1) in plain numbers: the end state, steps taken and rejected."""
    t, dt, ratios, accepted, rejected = 0.0, first, [1.0, 1.0], 0, 0
    kp, ki, kd = pid.proportional, pid.integral, pid.derivative
    while t < 1:
        step = min(dt, 1 - t)
        k1 = f(t, y)
        k2 = f(t + step, y + step * k1)
        end = y + step * (k1 + k2) / 2
        ratio = abs(step * (k2 - k1) / 2) / (pid.atol + pid.rtol * max(abs(y), abs(end)))
        factor = pid.safety * ratio ** (-(kp + ki + kd) / 2)
        factor *= ratios[-1] ** ((kp + 2 * kd) / 2) * ratios[-2] ** (-kd / 2)
        if ratio > 1 and kd:
            factor = min(factor, pid.safety)
        dt = step * min(max(factor, pid.factor_min), pid.factor_max)
        if pid.dt_max is not None:
            dt = min(dt, pid.dt_max)
        if ratio <= 1:
            t, y, accepted = t + step, end, accepted + 1
            ratios.append(ratio)
        else:
            rejected += 1
    return y, accepted, rejected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"proportional": 0.3, "integral": 0.3},
        {"proportional": 0.2, "integral": 0.4, "derivative": 0.05},
        {"safety": 0.6},
        {"factor_min": 0.9, "factor_max": 1.1},
        {"dt_max": 0.02},
        {"rtol": 1e-6, "atol": 1e-2},
        {"rtol": 1e-2, "atol": 1e-6},
    ],
    ids=str,
)
@pytest.mark.parametrize("first", [1e-3, 0.5])
def test_the_controller_does_what_its_formula_says(options: dict[str, float], first: float) -> None:
    pid = PID(**{"rtol": 1e-3, "atol": 1e-3, **options}, first_step=first)

    def f(t: float, y: float) -> float:
        return -y * y * (1 + 8 * math.cos(9 * t))

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y * y * (1 + 8 * torch.cos(9 * t))

    start = min(first, options.get("dt_max", first))
    y, accepted, rejected = by_hand(f, 1.5, pid, start)
    solution = HeunEuler(step_size=pid).solve(field, torch.tensor([[1.5]], dtype=F64))
    assert solution.stats.accepted.tolist() == [accepted]  # type: ignore[union-attr]
    assert solution.stats.rejected.tolist() == [rejected]  # type: ignore[union-attr]
    assert float(solution.y) == pytest.approx(y, rel=1e-10)
    if first == 0.5:
        assert rejected > 0 or "dt_max" in options


class Steps:
    """The sizes of the steps that were tried, off the times of the first stage."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function
        self.times: list[float] = []

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.times.append(float(t.max()))
        return self.function(t, y)


def test_dt_max_and_first_step_are_kept() -> None:
    field = Steps(lambda t, y: 0 * y)
    pid = PID(first_step=1e-3, dt_max=0.125)
    solution = HeunEuler(step_size=pid).solve(field, torch.ones(1, 1, dtype=F64))
    # Heun: t, t + dt, t, ...: the second evaluation of a step is at its end
    ends = field.times[1::2]
    assert ends[0] == 1e-3
    assert ends[1] - ends[0] == pytest.approx(1e-2)
    steps = torch.tensor(ends).diff()
    assert float(steps.max()) == pytest.approx(0.125)
    assert solution.stats.accepted.tolist() == [len(ends)]  # type: ignore[union-attr]
    assert ends[-1] == 1.0


def test_dt_min_is_kept() -> None:
    """A sample that needs smaller steps fails, instead of taking them."""

    def kink(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(y < 0.5, 1e5 * torch.sin(1e5 * y), -torch.ones_like(y))

    pid = PID(dt_min=1e-3)
    field = Steps(kink)
    solution = HeunEuler(step_size=pid).solve(field, torch.ones(2, 1, dtype=F64), throw=False)
    assert solution.status.tolist() == [STEP_UNDERFLOW] * 2
    assert float(solution.y.min()) == pytest.approx(0.5, abs=2e-3)
    with pytest.raises(
        SolverError, match=r"2 of 2 samples \(0, 1\) needed a step smaller than the time can"
    ):
        HeunEuler(step_size=pid).solve(kink, torch.ones(2, 1, dtype=F64))


def test_no_step_is_below_dt_min() -> None:
    """Also where steps are accepted whose errors ask for smaller and smaller ones."""
    field = Steps(lambda t, y: torch.exp(10 * (t - 1)).expand_as(y).clone())
    pid = PID(3e-4, 3e-4, dt_min=0.02, first_step=0.1)
    solution = HeunEuler(step_size=pid).solve(field, torch.ones(1, 1, dtype=F64), throw=False)
    # Heun: t, t + dt, t, ...
    tries = [end - start for start, end in zip(field.times[::2], field.times[1::2], strict=True)]
    if solution.status.tolist() == [0]:
        tries.pop()  # cut at t1
    else:
        assert solution.status.tolist() == [STEP_UNDERFLOW]
    assert min(tries) >= 0.02


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rtol": 0.0}, "rtol must be a positive finite number, not 0.0"),
        ({"atol": -1.0}, "atol must be a positive finite number"),
        ({"rtol": math.nan}, "rtol must be a positive finite number"),
        ({"rtol": "1e-3"}, "rtol must be a positive finite number"),
        ({"proportional": math.inf}, "proportional must be a number"),
        ({"integral": 0.0}, r"proportional \+ integral \+ derivative must be positive"),
        ({"safety": 1.5}, r"safety must be a number in \(0, 1\), not 1.5"),
        ({"factor_min": 1.0}, r"factor_min must be a number in \(0, 1\)"),
        ({"factor_max": 1.0}, r"factor_max must be a number in \(1, inf\)"),
        ({"dt_min": 0.0}, r"dt_min must be a number in \(0, inf\)"),
        ({"dt_max": -1.0}, r"dt_max must be a number in \(0, inf\)"),
        ({"first_step": True}, "first_step must be a number"),
        ({"dt_min": 1.0, "dt_max": 0.5}, "dt_min 1.0 must not exceed dt_max 0.5"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1, not 0"),
        ({"max_steps": 1.5}, "max_steps must be a whole number"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PID(**options)


def test_steps_and_tolerances_name_the_rule() -> None:
    assert Tsit5(5).step_size == Heun(5).step_size == Uniform(5)
    assert Heun(rtol=1e-3).step_size == HeunEuler(rtol=1e-3).step_size == PID(rtol=1e-3)
    assert Bosh3(atol=1e-2, step_size=PID(max_steps=7)).step_size == PID(atol=1e-2, max_steps=7)
    assert Euler(3, step_size=Uniform()).step_size == Uniform(3)
    scaled = GradientScaled(5, sharpness=1.0)
    assert Euler(3, step_size=scaled).step_size == GradientScaled(3, sharpness=1.0)
    assert Euler().with_steps(3) == Euler(3) != Euler(step_size=Uniform(3))
    assert Tsit5().with_steps(3) == Tsit5()
    assert solvers.get("heun", rtol=1e-3) == Heun(rtol=1e-3)
    assert solvers.get("tsit5", steps=3) == Tsit5(3)
    assert solvers.get("bosh3", shared=True, max_steps=9) == Bosh3(
        step_size=PID(max_steps=9, shared=True)
    )


@pytest.mark.parametrize(
    "solver",
    [
        Euler(3),
        Euler(step_size=Uniform(3)),
        Euler(step_size=GradientScaled(3, cap=1.0)),
        Tsit5(),
        Tsit5(4),
        Bosh3(rtol=1e-3),
        DormandPrince(step_size=PID(max_steps=9)),
        Heun(atol=1e-3, gradient=solvers.Checkpointing()),
    ],
    ids=repr,
)
def test_a_solver_is_what_its_repr_says(solver: NativeSolver) -> None:
    assert eval(repr(solver), vars(solvers)) == solver


def test_steps_and_rules_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="PID chooses its own number of steps, so steps=5 means"):
        Tsit5(5, step_size=PID())
    with pytest.raises(ValueError, match="steps and rtol or atol contradict each other"):
        Heun(5, rtol=1e-3)
    with pytest.raises(ValueError, match=r"steps and rtol.* contradict each other"):
        solvers.get("tsit5", steps=4, rtol=1e-3)
    with pytest.raises(ValueError, match="Uniform takes a number of steps and no tolerances"):
        Heun(rtol=1e-3, step_size=Uniform(5))
    for options in ({"rtol": 1e-3}, {"step_size": PID()}):
        with pytest.raises(ValueError, match="PID needs a method that estimates its error"):
            solvers.ClassicRK4(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rtol must be a positive finite number"):
        Heun(rtol=-1.0)
    with pytest.raises(ValueError, match="step_size must be a rule"):
        Heun(step_size="pid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gradient must be a mode"):
        Heun(gradient="backpropagation")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"method must be a solvers\.Method"):
        NativeSolver(5)


@pytest.mark.parametrize(
    ("solver", "method", "tolerance"),
    [
        (DormandPrince(), "RK45", 1e-4),
        (DormandPrince(), "RK45", 1e-6),
        (DormandPrince(), "RK45", 1e-8),
        (Bosh3(), "RK23", 1e-4),
        (Bosh3(), "RK23", 1e-6),
    ],
)
def test_agrees_with_scipy(solver: NativeSolver, method: str, tolerance: float) -> None:
    """A damped pendulum: errors as small, in about as many steps, at equal tolerances."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[:, 1], -9 * torch.sin(y[:, 0]) - 0.1 * y[:, 1]], dim=1)

    def numbers(t: float, y: Any) -> list[float]:
        return [y[1], -9 * math.sin(y[0]) - 0.1 * y[1]]

    y0, end = torch.tensor([[2.0, 0.0]], dtype=F64), 5.0
    theirs = solve_ivp(numbers, (0, end), [2.0, 0.0], method, rtol=tolerance, atol=tolerance)
    exact = solve_ivp(numbers, (0, end), [2.0, 0.0], "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    ours = replace(solver, step_size=PID(tolerance, tolerance)).solve(field, y0, (0.0, end))
    error = abs(ours.y[0].numpy() - exact).max()
    assert error < 3 * abs(theirs.y[:, -1] - exact).max() + tolerance
    steps = len(theirs.t) - 1
    assert steps / 1.5 < int(ours.stats.accepted) < 1.5 * steps  # type: ignore[arg-type]
    assert int(ours.stats.nfe) < 1.5 * theirs.nfev  # type: ignore[arg-type]
