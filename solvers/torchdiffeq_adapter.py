"""torchdiffeq's methods behind the solver interface. The only module that imports torchdiffeq."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from solvers.fields.base import VectorField, check_like
from solvers.loop.events import Event
from solvers.solution import (
    MAX_STEPS,
    NON_FINITE,
    STEP_UNDERFLOW,
    SUCCESS,
    Solution,
    Stats,
)
from solvers.solver import Solver, check_problem, check_steps, check_tolerance
from solvers.transforms import all_finite, finite_samples, finite_status, keep_healthy

# How torchdiffeq words its failures: it has no types for them.
_FAILURES = (
    (re.compile("max_num_steps exceeded"), MAX_STEPS),
    (re.compile("underflow in dt"), STEP_UNDERFLOW),
    (re.compile("non-finite values in state"), NON_FINITE),
)


@cache
def _methods() -> dict[str, bool]:
    """torchdiffeq's method names, and whether each works on a fixed grid."""
    from torchdiffeq._impl.odeint import SOLVERS
    from torchdiffeq._impl.solvers import FixedGridODESolver

    return {name: issubclass(kind, FixedGridODESolver) for name, kind in SOLVERS.items()}


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
        if self.method not in _methods():
            raise ValueError(
                f"torchdiffeq has no method {self.method!r}; it has {', '.join(sorted(_methods()))}"
            )
        check_steps(self.steps)
        check_steps(self.max_steps, "max_steps")
        check_tolerance("rtol", self.rtol)
        check_tolerance("atol", self.atol)

    @property
    def fixed_grid(self) -> bool:
        """Whether the method takes ``steps`` equal steps, and no notice of the tolerances."""
        return _methods()[self.method]

    def with_steps(self, steps: int) -> TorchDiffEq:
        check_steps(steps)
        return replace(self, steps=steps) if self.fixed_grid else self

    def solve(
        self,
        field: VectorField,
        y0: Tensor,
        t_span: tuple[float, float] = (0.0, 1.0),
        *,
        t_eval: Tensor | Sequence[float] | None = None,
        event: Event | None = None,
        throw: bool = True,
    ) -> Solution:
        from torchdiffeq import odeint

        if event is not None:
            raise ValueError(
                "torchdiffeq's methods share their steps, so no sample can stop at an event of "
                "its own: take a native solver with error control, such as Dopri5"
            )
        (t0, t1), times = check_problem(y0, t_span, t_eval)
        if isinstance(times, Tensor):
            raise ValueError(
                "torchdiffeq's methods take the same t_eval for all samples, shape (M,): take a "
                "native solver for times of each"
            )
        # torchdiffeq warns of callbacks that a method never calls.
        silent = self.fixed_grid or self.method == "scipy_solver"
        counted = (_Counted if silent else _CountedSteps)(field, y0.dtype)
        # torchdiffeq wants strictly increasing times, the span's ends among them.
        knots = sorted({t0, t1, *(times or ())})
        # Error estimates mean nothing in half precision: the field sees it, the solver float32.
        dtype = torch.promote_types(y0.dtype, torch.float32)
        t = torch.tensor(knots, dtype=dtype, device=y0.device)
        try:
            path = odeint(
                counted,
                y0.to(dtype),
                t,
                rtol=self.rtol,
                atol=self.atol,
                method=self.method,
                options=self._options(t, dense=times is not None),
            )
        except AssertionError as error:
            failed = self._failed(error, y0, times, counted)
            return failed.throw() if throw else failed
        path = path.to(y0.dtype)
        y = path[-1]
        ys = None if times is None else path[[knots.index(time) for time in times]]
        status = torch.full(y0.shape[:1], int(SUCCESS), dtype=torch.int8, device=y0.device)
        if not all_finite(y.detach()):
            healthy = finite_samples(y)
            status, y = finite_status(healthy), keep_healthy(healthy, y, y0)
        solution = Solution(y, ys, self._stats(counted), status)
        return solution.throw() if throw else solution

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
        if isinstance(counted, _CountedSteps):
            return Stats(nfe=counted.nfe, accepted=counted.accepted, rejected=counted.rejected)
        return Stats(nfe=counted.nfe, accepted=self.steps if self.fixed_grid else 0)

    def _failed(
        self, error: AssertionError, y0: Tensor, times: list[float] | None, counted: _Counted
    ) -> Solution:
        """A solution that says which failure it was; torchdiffeq drops the state it had."""
        status = next((code for words, code in _FAILURES if words.search(str(error))), None)
        if status is None:
            raise error
        ys = None if times is None else torch.stack([y0] * len(times))
        codes = torch.full(y0.shape[:1], int(status), dtype=torch.int8, device=y0.device)
        return Solution(y0, ys, self._stats(counted), codes)


class _Counted:
    """A field in its own dtype that counts its evaluations."""

    def __init__(self, field: VectorField, dtype: torch.dtype) -> None:
        if not callable(field):
            raise ValueError(f"field must be callable as field(t, y), not {type(field).__name__}")
        self._field = field
        self._dtype = dtype
        self.nfe = 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        state = y.to(self._dtype)
        return check_like(self._field(t, state), state, "field(t, y)").to(y.dtype)


class _CountedSteps(_Counted):
    """One that counts the steps of an adaptive method too, by torchdiffeq's callbacks."""

    def __init__(self, field: VectorField, dtype: torch.dtype) -> None:
        super().__init__(field, dtype)
        self.accepted = 0
        self.rejected = 0

    def callback_accept_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.accepted += 1

    def callback_reject_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.rejected += 1
