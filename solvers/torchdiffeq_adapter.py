"""torchdiffeq's methods behind the solver interface. The only module that imports torchdiffeq."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from solvers.checks import check_steps, check_tolerance, has_gradient
from solvers.fields.base import VectorField, evaluate
from solvers.loop.problem import Problem
from solvers.methods.arithmetic import time_dtype
from solvers.methods.runge_kutta import RungeKutta
from solvers.methods.tableaus import RK4
from solvers.solution import (
    MAX_STEPS,
    NON_FINITE,
    STEP_UNDERFLOW,
    Solution,
    Stats,
    all_finite,
    all_succeeded,
    batch_shape,
    finite_samples,
    finite_status,
)
from solvers.solver import Solver

# How torchdiffeq words its failures: it has no types for them.
_FAILURES = {
    "max_num_steps exceeded": MAX_STEPS,
    "underflow in dt": STEP_UNDERFLOW,
    "non-finite values in state": NON_FINITE,
}
# How torch words that a transform cannot follow a program.
_TRANSFORMED = "vmap", "functorch", "forward mode AD", "tracing tensor"
_REMARK = (
    " torchdiffeq's methods take the same steps for all samples, so that one of them fails all, "
    "and a NaN of one reaches the gradients of what they share: a native solver, such as "
    "DormandPrince, keeps them apart."
)


@cache
def torchdiffeq_methods() -> dict[str, bool]:
    """torchdiffeq's method names, and whether each works on a fixed grid."""
    from torchdiffeq._impl.odeint import SOLVERS
    from torchdiffeq._impl.solvers import FixedGridODESolver

    return {name: issubclass(kind, FixedGridODESolver) for name, kind in SOLVERS.items()}


def torchdiffeq_odeint(*, adjoint: bool) -> Any:
    """torchdiffeq's own ``odeint``, or its ``odeint_adjoint``."""
    import torchdiffeq

    return torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """A method of torchdiffeq (Chen 2018).

    Fixed-grid methods (``rk4``, the 3/8 rule, among them) take ``steps`` equal steps; the others
    choose their steps by ``rtol`` and ``atol``, for the batch as a whole: there, unlike with the
    native solvers, a sample's result depends a little on what else is in its batch, and one
    failed sample fails them all. Gradients flow through the steps. ``scipy_solver`` leaves
    torch, so no gradient flows through it.

    Args:
        method: a name of torchdiffeq's.
        steps: number of steps of a fixed-grid method.
        rtol, atol: relative and absolute tolerance of the others.
        max_steps: the most steps an adaptive method may take between two evaluation times.

    Raises:
        ValueError: where the method is unknown, ``steps`` < 1 or a tolerance is not positive.
    """

    method: str = "dopri5"
    steps: int = 5
    rtol: float = 1e-5
    atol: float = 1e-6
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        if self.method not in torchdiffeq_methods():
            known = ", ".join(sorted(torchdiffeq_methods()))
            raise ValueError(f"torchdiffeq has no method {self.method!r}; it has {known}")
        check_steps(self.steps)
        check_steps(self.max_steps, "max_steps")
        check_tolerance("rtol", self.rtol)
        check_tolerance("atol", self.atol)

    @property
    def fixed_grid(self) -> bool:
        """Whether the method takes ``steps`` equal steps, and no notice of the tolerances."""
        return torchdiffeq_methods()[self.method]

    def with_steps(self, steps: int) -> TorchDiffEq:
        check_steps(steps)
        return replace(self, steps=steps) if self.fixed_grid else self

    def solve_problem(self, problem: Problem) -> Solution:
        if torch.compiler.is_compiling():
            from solvers import beside_the_graph

            return cast(Solution, beside_the_graph.torchdiffeq(self.solve_problem, problem))
        from torchdiffeq import odeint

        if problem.events:
            raise ValueError(
                "torchdiffeq's methods share their steps, so no sample can stop at an event of "
                "its own: take a native solver with error control, such as DormandPrince"
            )
        if problem.dense:
            raise ValueError(
                "torchdiffeq's methods do not show the states within their steps, so there is no "
                "path: give the times as t_eval, or take a native solver such as DormandPrince"
            )
        if problem.times is not None and not problem.times.shared:
            raise ValueError(
                "torchdiffeq's methods take the same t_eval for all samples, shape (M,), as "
                "then is the time span: take a native solver for times of each"
            )
        if self.method == "scipy_solver" and _times_with_gradient(problem) is not None:
            raise ValueError(
                "t_eval requires a gradient, and scipy_solver leaves torch, so that none gets "
                "back: detach it, or take dopri5"
            )
        y0, (t0, t1) = problem.y0, problem.t_span
        if y0.numel() == 0:  # whose error torchdiffeq takes for NaN
            ys = None if problem.times is None else y0.expand(len(problem.times), *y0.shape)
            return Solution(y0, ys, Stats(0, 0), all_succeeded(y0), succeeded=True)
        adaptive = not self.fixed_grid and self.method != "scipy_solver"
        counted = _Counted(problem.field, y0.dtype, t1, adaptive)
        # torchdiffeq wants strictly increasing times, the span's ends among them.
        asked = _asked(problem)
        knots = sorted({t0, t1, *asked})
        # Error estimates mean nothing in half precision: the field sees it, the solver float32.
        dtype = torch.promote_types(y0.dtype, torch.float32)
        t = torch.tensor(knots, dtype=time_dtype(y0.device), device=y0.device)
        try:
            path = odeint(
                counted,
                y0.to(dtype),
                t,
                rtol=self.rtol,
                atol=self.atol,
                method=self.method,
                options=self._options(t, dense=bool(asked)),
            )
        except AssertionError as error:
            return self._failed(error, problem, counted)
        except RuntimeError as error:
            if not any(words in str(error) for words in _TRANSFORMED):
                raise
            raise ValueError(
                f"torchdiffeq's {self.method!r} does not work under this transform of torch.func "
                f"({error}). Take a native solver: DormandPrince(), or under vmap one with a "
                "number of steps, ClassicRK4(steps=20)"
            ) from error
        y = path[-1].to(y0.dtype)
        ys = None
        if problem.times is not None:
            ys = path[[knots.index(time) for time in asked]]
            ys = _with_time_gradient(ys, counted, problem).to(y0.dtype)
        if all_finite(y.detach()):
            return Solution(y, ys, self._stats(counted), all_succeeded(y0), succeeded=True)
        healthy = finite_samples(y) if y.ndim > 1 else torch.isfinite(y).all()
        y = torch.where(healthy.view(*batch_shape(y), *[1] * (y.ndim - 1)), y, y0)
        return Solution(y, ys, self._stats(counted), finite_status(healthy), remark=_REMARK)

    def _options(self, t: Tensor, *, dense: bool) -> dict[str, Any]:
        if self.fixed_grid:
            # The whole grid, since a step size may round to one step more than asked for.
            grid = torch.linspace(0, 1, self.steps + 1, dtype=t.dtype, device=t.device)
            grid = torch.lerp(t[0], t[-1], grid)
            grid[-1] = t[-1]
            # Cubic interpolation costs an evaluation even at the end of the span.
            interpolation = "cubic" if dense else "linear"
            return {"grid_constructor": lambda func, y0, t: grid, "interp": interpolation}
        if self.method == "scipy_solver":
            return {}
        # torchdiffeq's own default is float64, which some devices do not have.
        # It otherwise steps past the asked times and interpolates back, which loses accuracy.
        return {"dtype": t.dtype, "max_num_steps": self.max_steps, "step_t": t[1:]}

    def _stats(self, counted: _Counted) -> Stats:
        count = counted.count
        accepted = self.steps if self.fixed_grid else count["accepted"]
        return Stats(count["evaluations"], accepted, count["rejected"])

    def _failed(self, error: AssertionError, problem: Problem, counted: _Counted) -> Solution:
        """A solution that says which failure it was; torchdiffeq drops the state it had.

        All samples fail with the one that does. Where a derivative is not finite, its samples are
        told by NON_FINITE from those that only share their steps.
        """
        found = [code for words, code in _FAILURES.items() if words in str(error)]
        if not found:
            raise error
        y0, times = problem.y0, problem.times
        ys = None if times is None else torch.stack([y0] * len(times))
        codes = torch.full_like(all_succeeded(y0), int(found[0]))
        if counted.last is not None and y0.ndim > 1:
            codes[~finite_samples(counted.last)] = int(NON_FINITE)
        return Solution(y0, ys, self._stats(counted), codes, remark=_REMARK)


def _asked(problem: Problem) -> list[float]:
    """The asked times, those at t0 exactly there."""
    (t0, t1), times = problem.t_span, problem.times
    if times is None:
        return []
    left = times.remaining if times.of_each is None else times.of_each.detach().view(-1).tolist()
    return [t0 if each >= t1 - t0 else t1 - each for each in left]


def _times_with_gradient(problem: Problem) -> Tensor | None:
    """The time that is left at the asked times, where a gradient flows to them."""
    left = None if problem.times is None else problem.times.of_each
    return left if left is not None and has_gradient(left) else None


def _with_time_gradient(ys: Tensor, field: VectorField, problem: Problem) -> Tensor:
    """The states at times that a gradient flows to, which torchdiffeq's interpolation has none to.

    Each after a step over no time, of the Runge-Kutta method of order 4: the same number, whose
    derivatives by the length of the step are those of the solution.
    """
    left = _times_with_gradient(problem)
    if left is None:
        return ys
    step = RungeKutta(RK4).step
    moved = []
    for asked, y in zip(problem.t_span[1] - left.squeeze(1), ys, strict=True):
        t, none = asked.detach(), (asked - asked.detach()).to(y.dtype)
        moved.append(step(field, t, y, none, field(t, y)).y)
    return torch.stack(moved)


class _Counted:
    """A field in its own dtype that counts its evaluations, none of them beyond the span.

    Attributes:
        count: of ``evaluations``, and of the steps ``accepted`` and ``rejected``.
        last: what the last evaluation gave.
    """

    def __init__(self, field: VectorField, dtype: torch.dtype, t1: float, steps: bool) -> None:
        self._field, self._dtype, self._t1 = field, dtype, t1
        self.count: Counter[str] = Counter()
        self.last: Tensor | None = None
        if steps:  # torchdiffeq finds these by their names, and warns where it never calls them
            self.callback_accept_step = lambda *_: self.count.update(["accepted"])
            self.callback_reject_step = lambda *_: self.count.update(["rejected"])

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.count["evaluations"] += 1
        # torchdiffeq tries a first step that may be longer than the span.
        time = t.clamp(max=self._t1).to(torch.promote_types(self._dtype, torch.float32))
        slope: Tensor = evaluate(self._field, time, y.to(self._dtype))
        self.last = slope.detach()
        return slope.to(y.dtype)
