"""States at the asked times, gathered step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers.checks import has_gradient, holds
from solvers.fields.batch_parts import Rows
from solvers.loop.clock import Clock
from solvers.methods.arithmetic import Increment, time_dtype
from solvers.methods.interpolation import Path


@dataclass(frozen=True)
class Times:
    """Where states are asked for, as the time that then remains until t1.

    Attributes:
        remaining: M numbers, the same for all samples; from the largest down.
        of_each: ``(M, B)`` where every sample has its own, in float64 where the device has it;
            ``(M, 1)`` where all have the same and a gradient flows to them; else None.
        whole: the time that remains at t0, with ``of_each``.
    """

    remaining: tuple[float, ...]
    of_each: Tensor | None = None
    whole: float = 0.0

    def __len__(self) -> int:
        return len(self.remaining) if self.of_each is None else len(self.of_each)

    @property
    def shared(self) -> bool:
        """Whether all samples have the same."""
        return self.of_each is None or self.of_each.shape[1] == 1

    def select(self, rows: Rows) -> Times:
        """The times of some samples."""
        each = self.of_each
        if each is None or self.shared:
            return self
        own = rows.to(each.device) if isinstance(rows, Tensor) else rows
        return replace(self, of_each=each[:, own])

    def like(self, remaining: Tensor, rows: Tensor | None) -> Tensor:
        """The times that remain, ``(M, n)`` or ``(M, 1)``, in the rule's own precision."""
        if self.of_each is None:
            return remaining.new_tensor(self.remaining).unsqueeze(1)
        values = self.of_each.to(remaining.dtype).to(remaining.device)  # some have no float64
        return values if rows is None or self.shared else values[:, rows]


def as_times(t_eval: Any, y0: Tensor, span: tuple[float, float], clock: Clock | None) -> Times:
    """The times that a user asks for.

    Args:
        t_eval: numbers, or tensors ``(M,)`` or ``(M, B)``, in the order of the span.
        y0: the state.
        span: the loop's.
        clock: of the user's times; None where they are the loop's.

    Raises:
        ValueError: where they are none, are out of order, or lie outside the span.
    """
    listed = isinstance(t_eval, (list, tuple)) and len(t_eval) > 0
    if clock is None and listed and all(isinstance(t, (float, int)) for t in t_eval):
        return _of_numbers(t_eval, span)
    if listed and any(isinstance(t, Tensor) for t in t_eval):
        t_eval = torch.stack([torch.as_tensor(t, dtype=torch.float64) for t in t_eval])
    asked = t_eval if isinstance(t_eval, Tensor) else torch.as_tensor(t_eval, dtype=torch.float64)
    graph = has_gradient(asked)
    device = torch.device("cpu") if clock is None and not graph else y0.device
    asked = asked.to(device=device, dtype=time_dtype(device))
    batch = y0.shape[0] if y0.ndim > 1 else None
    if asked.numel() == 0 or not (asked.ndim == 1 or (asked.ndim == 2 and asked.shape[1] == batch)):
        each = f", or have shape (M, B) with the times of each of the {batch} samples"
        raise ValueError(
            f"t_eval must be a non-empty list of times{each if batch is not None else ''}, not "
            f"{tuple(asked.shape)}"
        )
    alike = asked.ndim == 1 and (clock is None or not clock.t0.ndim)
    asked = asked.unsqueeze(1) if asked.ndim == 1 else asked
    gone = asked - span[0] if clock is None else clock.elapsed(asked)
    whole = span[1] - span[0]
    # A time that was computed in float32 may miss the end by a rounding.
    values, slack = gone.detach(), 1e-6 * whole
    within = (values >= -slack) & (values <= whole + slack)
    if clock is not None:
        within = within & clock.stands(asked, graph=graph)
    if holds(within) is None and not torch.compiler.is_compiling():
        raise ValueError(
            "t_eval needs times whose values can be read, which vmap hides: give the solver all "
            "spans in one batch, t_span of tensors (B,), in place of vmap"
        )
    if not bool(within.all()):
        raise ValueError(_OUTSIDE.format(t_eval))
    if bool((values.diff(dim=0) < 0).any()):
        raise ValueError(_OUT_OF_ORDER)
    if alike and not (graph or has_gradient(gone)):
        if clock is None:
            clamped = asked.squeeze(1).clamp(*span).tolist()
            return Times(tuple(span[1] - t for t in clamped))
        return Times(tuple((whole - values.squeeze(1).clamp(0, whole)).tolist()))
    gone = gone + (values.clamp(0, whole) - values)  # which keeps the gradient at the ends
    return Times((), whole - gone, whole)


def _of_numbers(t_eval: Sequence[float], span: tuple[float, float]) -> Times:
    """The same of plain numbers, without a tensor: for a graph that is to hold the whole solve."""
    t0, t1 = span
    slack = 1e-6 * (t1 - t0)
    if not all(t0 - slack <= t <= t1 + slack for t in t_eval):
        raise ValueError(_OUTSIDE.format(t_eval))
    if any(later < earlier for earlier, later in pairwise(t_eval)):
        raise ValueError(_OUT_OF_ORDER)
    return Times(tuple(t1 - min(max(float(t), t0), t1) for t in t_eval))


_OUTSIDE = "t_eval must lie within the time span; got {}"
_OUT_OF_ORDER = (
    "t_eval must be increasing, as the time span is; decreasing where that runs backwards"
)


class Record(NamedTuple):
    """States of some samples at some times.

    ``number`` and ``rows`` pair up, ``(k,)``, for ``values (k, ...)``; ``rows`` is None where
    ``values (B, ...)`` are all samples at the one time ``number``.
    """

    number: Tensor | int
    rows: Tensor | None
    values: Tensor


def at_start(times: Times, y0: Tensor, whole: Increment) -> tuple[Record, ...]:
    """The records of the times that are t0 itself, in the rule's own precision.

    None of times with a gradient, which the first step has.
    """
    if times.of_each is not None and has_gradient(times.of_each):
        return ()
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
    if has_gradient(left):  # which the state at t0 has from the first step
        inside = inside | ((left == before.view(1, -1)) & (left >= left.new_tensor(times.whole)))
    if not last and isinstance(after, Tensor):
        inside = inside & (left >= after.view(1, -1))
    if accepted is not None:
        inside = inside & accepted.view(1, -1).to(inside.device)
    if until is not None:
        inside = inside & ~(t1 - left > until)
    if not torch.compiler.is_compiling() and holds(inside) is None:
        raise ValueError(
            "which step holds a time of t_eval depends on the step sizes of each sample, whose "
            "values vmap hides: take equal steps there, step_size=Uniform(5), or give the solver "
            "the whole batch in place of vmap"
        )
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
