"""States at the asked times, gathered step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.methods.arithmetic import Increment
from solvers.methods.interpolation import Path


@dataclass(frozen=True)
class Times:
    """Where states are asked for, as the time that then remains until t1.

    Attributes:
        remaining: M numbers, the same for all samples; from the largest down.
        of_each: ``(M, B)`` where every sample has its own, in float64 on the CPU; else None.
    """

    remaining: tuple[float, ...]
    of_each: Tensor | None

    def __len__(self) -> int:
        return len(self.remaining) if self.of_each is None else len(self.of_each)

    def like(self, remaining: Tensor, rows: Tensor | None) -> Tensor:
        """The times that remain, ``(M, n)`` or ``(M, 1)``, in the rule's own precision."""
        if self.of_each is None:
            return remaining.new_tensor(self.remaining).unsqueeze(1)
        values = self.of_each.to(remaining.dtype).to(remaining.device)  # some have no float64
        return values if rows is None else values[:, rows]


class Record(NamedTuple):
    """States of some samples at some times.

    ``number`` and ``rows`` pair up, ``(k,)``, for ``values (k, ...)``; ``rows`` is None where
    ``values (B, ...)`` are all samples at the one time ``number``.
    """

    number: Tensor | int
    rows: Tensor | None
    values: Tensor


def at_start(times: Times, y0: Tensor, whole: Increment) -> tuple[Record, ...]:
    """The records of the times that are t0 itself, in the rule's own precision."""
    if not isinstance(whole, Tensor):
        if times.of_each is None:
            found = [index for index, left in enumerate(times.remaining) if left >= whole]
            return tuple(Record(index, None, y0) for index in found)
        whole = torch.full((y0.shape[0], 1), whole, dtype=torch.float64)  # on the CPU
    left = times.like(whole, None)
    index, rows = (left >= whole.view(1, -1)).nonzero().to(y0.device).unbind(1)
    return (Record(index, rows, y0[rows]),)


def records_of_step(
    times: Times,
    path: Path,
    before: Increment,
    after: Increment,
    *,
    last: bool = False,
    accepted: Tensor | None = None,
    rows: Tensor | None = None,
    until: Tensor | None = None,
    t1: float = 0.0,
) -> tuple[Record, ...]:
    """The states at the times within one step.

    Args:
        times: the asked times.
        path: the states within the step.
        before, after: the time that remains at both ends of the step.
        last: whether the step reaches t1, whatever rounding says.
        accepted: which samples take the step, ``(n, 1, ..., 1)``; None for all.
        rows: places of the samples in the batch; None where all are there.
        until: times of events ``(n,)``, NaN where there is none: nothing is recorded after.
        t1: end of the time span, which ``until`` is counted from.
    """
    if not isinstance(before, Tensor) and times.of_each is None and accepted is None:
        end = -1.0 if last else after
        return tuple(
            Record(index, None, path.at((before - left) / path.dt))
            for index, left in enumerate(times.remaining)
            if end <= left < before
        )
    if not isinstance(before, Tensor):  # compared on the CPU: some devices have no float64
        size = (path.y.shape[0], 1)
        before, after = (
            torch.full(size, float(value), dtype=torch.float64) for value in (before, after)
        )
    left = times.like(before, rows)  # (M, n) or (M, 1)
    inside = left < before.view(1, -1)
    if not last and isinstance(after, Tensor):
        inside = inside & (left >= after.view(1, -1))
    if accepted is not None:
        inside = inside & accepted.view(1, -1).to(inside.device)
    if until is not None:
        inside = inside & ~(t1 - left > until)
    index, which = inside.nonzero().unbind(1)
    if index.numel() == 0:
        return ()
    asked = left.expand_as(inside)[index, which]
    gone = (before.reshape(-1)[which] - asked).view(-1, *[1] * (path.y.ndim - 1))
    index, which = index.to(path.y.device), which.to(path.y.device)
    part = path.select(which)
    theta = gone.to(path.y.dtype).to(path.y.device) / part.dt
    return (Record(index, which if rows is None else rows[which], part.at(theta)),)


def stack_records(times: Times, records: tuple[Record, ...], y0: Tensor) -> Tensor:
    """States ``(M, *y0.shape)``; NaN where a sample did not come that far."""
    if all(record.rows is None for record in records) and len(records) == len(times):
        return torch.stack([record.values for record in records])
    states = torch.full((len(times), *y0.shape), torch.nan, dtype=y0.dtype, device=y0.device)
    for record in records:
        if record.rows is None:
            states = states.index_put((torch.tensor(record.number),), record.values)
    parts = [record for record in records if record.rows is not None]
    if parts:
        place = tuple(
            torch.cat([value for part in parts if isinstance(value := getattr(part, name), Tensor)])
            for name in ("number", "rows")
        )
        states = states.index_put(place, torch.cat([part.values for part in parts]))
    return states
