"""Where a solve stands between two steps."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from solvers.loop.saved_times import Record
from solvers.methods.arithmetic import Increment
from solvers.methods.base import BoundMethod


class Settled(NamedTuple):
    """Samples that have ended, ``n`` of them."""

    rows: Tensor
    y: Tensor
    status: Tensor
    accepted: Tensor
    tries: int
    evaluations: int | None
    """None while they are evaluated on, since the field cannot be asked for the others alone."""
    event_time: Tensor | None


class StepTaken(NamedTuple):
    """A step, told to an observer; ``accepted`` and ``rows`` are None where they are all."""

    t: Tensor
    y: Tensor
    dt: Increment
    slopes: tuple[Tensor, ...]
    accepted: Tensor | None
    rows: Tensor | None


class Progress(NamedTuple):
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
    live: int = 1
    """How many samples have not ended."""
    rows: Tensor | None = None
    """Their places in the batch; None where all are there."""
    done: Tensor | None = None
    """Which samples have ended but are evaluated with the others, bool ``(n,)``."""
    accepted: Tensor | None = None
    event: Any = None
    event_value: Tensor | None = None
    settled: tuple[Settled, ...] = ()
    records: tuple[Record, ...] = ()
    extra: tuple[tuple[Tensor, int], ...] = ()
    """Evaluations besides those that all samples share: places in the batch, and how many."""


def select_control(control: Any, rows: Tensor) -> Any:
    """Some samples of a rule's control."""
    return type(control)(
        *(value[rows] if isinstance(value, Tensor) and value.ndim else value for value in control)
    )
