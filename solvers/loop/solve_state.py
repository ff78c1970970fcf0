"""Where a solve stands between two steps."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from solvers.loop.crossings import Crossed, Stops
from solvers.loop.saved_times import Record
from solvers.methods.base import BoundMethod
from solvers.methods.pieces import Piece


class Finished(NamedTuple):
    """Samples that have ended, ``n`` of them."""

    rows: Tensor
    y: Tensor
    status: Tensor
    accepted: Tensor
    tries: int
    evaluations: int | None
    """None while they are evaluated on, since the field cannot be asked for the others alone."""
    stops: Stops | None


class SolveState(NamedTuple):
    """Where a solve stands. Tensors have one row for every sample that is evaluated."""

    bound: BoundMethod
    y: Tensor
    control: Any
    time: Tensor | None = None
    """The time for a field that does not depend on it."""
    first: Tensor | None = None
    """The first evaluation of the next step, where it is known already."""
    evaluations: int = 0
    tries: int = 0
    looks: int = 0
    """How often it was looked at whether rows depend on each other."""
    live: int = 1
    """How many samples have not ended."""
    rows: Tensor | None = None
    """Their places in the batch; None where all are there."""
    done: Tensor | None = None
    """Which samples have ended but are evaluated with the others, bool ``(n,)``."""
    accepted: Tensor | None = None
    events: tuple[Any, ...] = ()
    """The functions of the problem's events, for these samples."""
    event_values: tuple[Tensor, ...] = ()
    """Their values here, each ``(n,)``."""
    crossings: tuple[Crossed, ...] = ()
    pieces: tuple[Piece, ...] = ()
    finished: tuple[Finished, ...] = ()
    records: tuple[Record, ...] = ()

    def at_rows(self, which: Tensor, **more: Any) -> SolveState:
        """The samples ``which``, a sample as often as it is named, and ``more`` that changes.

        The field stays as it is.
        """

        def part(values: Any) -> Any:
            if not isinstance(values, Tensor) or not values.ndim:
                return values
            return values.index_select(0, which)

        return self._replace(
            y=part(self.y),
            control=type(self.control)(*map(part, self.control)),
            first=part(self.first),
            accepted=part(self.accepted),
            event_values=tuple(map(part, self.event_values)),
            **more,
        )
