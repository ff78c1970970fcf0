"""The solver interface, and what every solver checks of its arguments."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.errors import SolverError
from solvers.fields.base import VectorField
from solvers.loop.events import Event
from solvers.solution import Solution


class Solver(ABC):
    """Solves dy/dt = field(t, y) over a time span. An immutable value without per-solve state."""

    @abstractmethod
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
        """Integrate from t0 to t1.

        Args:
            field: dy/dt = field(t, y); see :class:`solvers.VectorField`.
            y0: initial state ``(B, ...)``, floating point; the first axis is the batch.
            t_span: (t0, t1) with t0 < t1.
            t_eval: increasing times within the span at which to return the state as well; with
                the native solvers also ``(M, B)``, the times of each sample.
            event: ends a sample where a function of its state crosses zero, before t1; for the
                native solvers with error control.
            throw: raise where a sample fails; False returns the statuses instead. Under
                torch.compile and function transforms such as vmap the solvers with a budget of
                steps do not look for failures, since that depends on the data.

        Raises:
            SolverError: where samples fail and ``throw`` is set.
            ValueError: where an argument is not as described.
        """

    def solve_chain(
        self,
        fields: Sequence[VectorField],
        y0: Tensor,
        t_span: tuple[float, float] = (0.0, 1.0),
    ) -> Tensor:
        """The ends of several problems, each of which starts where the one before it ended.

        It is what a recurrent network over a sequence solves: one field for every input.

        Args:
            fields: at least one, each for states like ``y0``.
            y0: initial state ``(B, ...)`` of the first problem.
            t_span: (t0, t1) of every problem.

        Returns:
            ``(len(fields), *y0.shape)``.

        Raises:
            SolverError: where samples fail.
            ValueError: where an argument is not as described.
        """
        if not fields:
            raise ValueError("fields must have at least one field")
        ends = []
        for index, field in enumerate(fields):
            try:
                y0 = self.solve(field, y0, t_span).y
            except SolverError as error:
                if len(fields) == 1:
                    raise
                raise SolverError(f"problem {index + 1} of {len(fields)}: {error}") from error
            ends.append(y0)
        return ends[0].unsqueeze(0) if len(ends) == 1 else torch.stack(ends)

    @abstractmethod
    def with_steps(self, steps: int) -> Solver:
        """The same solver with a budget of ``steps`` steps.

        A solver driven by a tolerance has no budget and returns itself.
        """


def check_steps(steps: Any, name: str = "steps") -> int:
    """Return a valid number of steps.

    Raises:
        ValueError: where it is no whole number of at least 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {steps!r}")
    return steps


def check_tolerance(name: str, value: Any) -> None:
    """Raise ValueError where a tolerance is not a positive finite number."""
    valid = isinstance(value, int | float) and not isinstance(value, bool)
    if not (valid and 0 < value < math.inf):
        raise ValueError(f"{name} must be a positive finite number, not {value!r}")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Raise ValueError where a number does not lie between two others, those not included."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not (low < value < high):
        raise ValueError(f"{name} must be a number in ({low:g}, {high:g}), not {value!r}")


def check_problem(
    y0: Any, t_span: Any, t_eval: Any
) -> tuple[tuple[float, float], list[float] | Tensor | None]:
    """The time span as floats; the times as floats, or as a tensor ``(M, B)`` in float64.

    Raises:
        ValueError: where the state is not floating point or has no batch axis, the span is
            reversed or empty, or a time lies outside it.
    """
    if not isinstance(y0, Tensor):
        raise ValueError(f"y0 must be a tensor, not {type(y0).__name__}")
    if not y0.is_floating_point():
        raise ValueError(f"y0 must be floating point, not {y0.dtype}: call y0.float() first")
    if y0.ndim == 0:
        raise ValueError("y0 must have a batch axis first: pass y0[None] for a single number")
    try:
        t0, t1 = (float(t) for t in t_span)
    except (TypeError, ValueError) as error:
        raise ValueError(f"t_span must be two numbers (t0, t1), not {t_span!r}") from error
    if not (math.isfinite(t0) and math.isfinite(t1) and t0 < t1):
        raise ValueError(
            f"t_span must run forwards, t0 < t1, not from {t0:g} to {t1:g}. To integrate "
            "backwards, negate the field and the time."
        )
    if t_eval is None:
        return (t0, t1), None
    return (t0, t1), _check_times(y0, (t0, t1), t_eval)


def _check_times(y0: Tensor, span: tuple[float, float], t_eval: Any) -> list[float] | Tensor:
    t0, t1 = span
    values = torch.as_tensor(t_eval, dtype=torch.float64, device="cpu").detach()
    of_each = values.ndim == 2 and values.shape[1] == y0.shape[0]
    if values.numel() == 0 or not (values.ndim == 1 or of_each):
        raise ValueError(
            "t_eval must be a non-empty list of times, or have shape (M, B) with the times of "
            f"each of the {y0.shape[0]} samples, not {tuple(values.shape)}"
        )
    # A time that was computed in float32 may miss the end by a rounding.
    slack = 1e-6 * (t1 - t0)
    if not bool(((values >= t0 - slack) & (values <= t1 + slack)).all()):
        raise ValueError(f"t_eval must lie within the time span [{t0:g}, {t1:g}]; got {t_eval}")
    if bool((values.diff(dim=0) < 0).any()):
        raise ValueError("t_eval must be increasing")
    values = values.clamp(t0, t1)
    if of_each:
        return values
    return [float(value) for value in values.tolist()]
