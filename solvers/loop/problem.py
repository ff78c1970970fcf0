"""One initial value problem, and what is asked of its solution."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from solvers.fields.base import VectorField, fitted
from solvers.fields.batch_parts import Rows, is_selectable, select
from solvers.fields.structures import Layout
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
        events: what is looked for along the way; some end a sample early.
        dense: whether the states at all times are asked for.
        jumps: times inside of the span or at its ends where the field jumps, increasing.
            :meth:`solvers.Solver.solve` solves from one to the next, so that none of them reaches
            :meth:`solvers.Solver.solve_problem`.
        reach: how large the user's times are where the loop's are others, which jumps are told
            apart by.
        resumed: whether the solve goes on from another, to whose end events were looked for.
        layout: of what the user has for a state, where that is not a real tensor.
    """

    field: VectorField
    y0: Tensor
    t_span: tuple[float, float] = (0.0, 1.0)
    times: Times | None = None
    events: tuple[Event, ...] = ()
    dense: bool = False
    jumps: tuple[float, ...] = ()
    reach: float = 0.0
    resumed: bool = False
    layout: Layout | None = None

    @property
    def selectable(self) -> bool:
        """Whether there are samples that can be asked for alone, of the field and all events."""
        if self.y0.ndim < 2:  # one system
            return False
        parts = (self.field, *(event.function for event in self.events))
        return all(map(is_selectable, parts))

    def select(self, rows: Rows) -> Problem:
        """The problem of some of the samples; of a selectable one."""
        times, events = self.times, self.events
        if times is not None:
            times = times.select(rows)
        events = tuple(replace(each, function=select(each.function, rows)) for each in events)
        field = select(fitted(self.field, self.y0), rows)
        return replace(self, field=field, y0=self.y0[rows], times=times, events=events)
