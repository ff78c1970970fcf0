"""One initial value problem, and what is asked of its solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from solvers.checks import check_span, check_state, check_times
from solvers.fields.base import VectorField, fitted
from solvers.fields.batch_parts import Rows, is_selectable, select
from solvers.loop.events import Event
from solvers.loop.saved_times import Times


@dataclass(frozen=True, eq=False)
class Problem:
    """dy/dt = field(t, y) from y0 over ``t_span``.

    Attributes:
        field: the vector field.
        y0: initial state ``(B, ...)``, or ``(d,)`` for one system.
        t_span: (t0, t1).
        times: where states are asked for, or None.
        event: what ends a sample early, or None.
    """

    field: VectorField
    y0: Tensor
    t_span: tuple[float, float] = (0.0, 1.0)
    times: Times | None = None
    event: Event | None = None

    @classmethod
    def of(
        cls,
        field: VectorField,
        y0: Tensor,
        t_span: tuple[float, float],
        t_eval: Tensor | Sequence[float] | None = None,
        event: Event | None = None,
    ) -> Problem:
        """The problem of these arguments of :meth:`solvers.Solver.solve`.

        Raises:
            ValueError: where one is not as described there.
        """
        if not callable(field):
            raise ValueError(f"field must be callable as field(t, y), not {type(field).__name__}")
        if event is not None and not isinstance(event, Event):
            raise ValueError(f"event must be solvers.Event(function), not {event!r}")
        check_state(y0)
        span = check_span(t_span)
        times = None
        if t_eval is not None:
            asked = check_times(y0, span, t_eval)
            if isinstance(asked, Tensor):
                times = Times((), span[1] - asked)
            else:
                times = Times(tuple(span[1] - t for t in asked), None)
        return cls(fitted(field, y0), y0, span, times, event)

    @property
    def selectable(self) -> bool:
        """Whether there are samples that can be asked for alone: of the field, and of the event."""
        if self.y0.ndim < 2:  # one system
            return False
        event = self.event is None or is_selectable(self.event.function)
        return event and is_selectable(self.field)

    def select(self, rows: Rows) -> Problem:
        """The problem of some of the samples, all with the same times; of a selectable one."""
        return replace(self, field=select(fitted(self.field, self.y0), rows), y0=self.y0[rows])
