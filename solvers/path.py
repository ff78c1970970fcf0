"""The path of a solve: its states at any time, and the steps that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers.checks import holds
from solvers.methods.arithmetic import Increment, time_dtype
from solvers.methods.interpolation import Path, line
from solvers.methods.pieces import Piece, join, states_at

_SLACK = 1e-6  # of the span: a time that was computed in float32 may miss an end by a rounding


class _Steps(NamedTuple):
    """All steps, found by sample and number.

    Attributes:
        paths: the steps, joined as far as they have one formula.
        starts, ends: their times ``(B, K)``; infinite beyond a sample's last.
        place: of each in the joined paths, ``(B, K)``.
        counts: how many steps each sample took ``(B,)``.
        shared: whether all samples took the same.
    """

    paths: tuple[Path, ...]
    starts: Tensor
    ends: Tensor
    place: Tensor
    counts: Tensor
    shared: bool


@dataclass(frozen=True, eq=False, repr=False)
class SolutionPath:
    """The states of a solve at any time between t0 and t1: ``path(t)``.

    On the method's own interpolant, as ``t_eval`` has them; no evaluation is spent. Gradients flow
    to the initial state, to what the field is made of, and to ``t``.

    Attributes:
        pieces: the steps, in order.
        y0: the initial state, with a batch axis.
        span: (t0, t1).
        until: when samples ended at an event ``(B,)``, NaN where they did not; or None.
        batched: whether times of each sample may be asked for.
    """

    pieces: tuple[Piece, ...]
    y0: Tensor
    span: tuple[float, float]
    until: Tensor | None = None
    batched: bool = True
    _states: Callable[[Any], Any] | None = None
    _shown: Callable[[Tensor], Tensor] | None = None
    _asked: Callable[[Tensor], Tensor] | None = None

    def __call__(self, t: Tensor | Sequence[float] | float) -> Any:
        """The states at the times ``t``.

        Args:
            t: a number or ``()``, for states ``(B, ...)``, the shape of ``y0``; times ``(M,)`` for
                ``(M, B, ...)``; or ``(M, B)``, the times of each sample, for the same.

        Returns:
            The states; NaN after a sample's event or failure, and where a time is NaN.

        Raises:
            ValueError: where the times have another shape, or lie outside the span.
        """
        dtype, device = self._steps.starts.dtype, self.y0.device
        given = t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=dtype)  # not float32
        times = given.to(device, dtype)
        self._check_shape(times)
        columns = times if times.ndim == 2 else times.reshape(-1, 1)
        columns = columns if self._asked is None else self._asked(columns)
        (t0, t1), slack = self.span, _SLACK * (self.span[1] - self.span[0])
        if holds((columns >= t0 - slack) & (columns <= t1 + slack) | columns.isnan()) is False:
            ends = torch.tensor(self.span, dtype=dtype, device=device)
            ends = ends if self._shown is None else self._shown(ends).detach()
            raise ValueError(
                f"the path is known within the time span, from {float(ends.min()):g} to "
                f"{float(ends.max()):g}; it was asked for at {t}"
            )
        states = self._at(columns.expand(-1, self.y0.shape[0]))
        states = states if times.ndim else states[0]
        return states if self._states is None else self._states(states)

    def _check_shape(self, times: Tensor) -> None:
        samples = self.y0.shape[0]
        if times.ndim < 2 or (times.ndim == 2 and self.batched and times.shape[1] == samples):
            return
        each = f", or (M, {samples}), the times of each sample" if self.batched else ""
        raise ValueError(
            f"a path is asked for at a number, or at times of shape (M,){each}; not at "
            f"{tuple(times.shape)}"
        )

    @property
    def times(self) -> Tensor:
        """When the steps began, and the last ended: ``(K + 1,)`` where all samples share them.

        Else ``(B, K + 1)``, NaN beyond a sample's last. A step that an event cut ends there.
        """
        starts, ends = self._steps.starts, self._steps.ends
        known = (ends > starts) & ends.isfinite()
        times = torch.cat([starts[:, :1], torch.where(known, ends, torch.nan)], 1)
        if self.until is not None:
            stop = self.until.detach().to(times.dtype).unsqueeze(1)
            times = torch.where(times > stop, stop, times)
        times = times[0] if self._steps.shared and self.until is None else times
        return times if self._shown is None else self._shown(times)

    @property
    def sizes(self) -> Tensor:
        """The sizes of the steps, ``(K,)`` or ``(B, K)``, NaN likewise."""
        return self.times.diff(dim=-1)

    def __repr__(self) -> str:
        t0, t1 = self.span
        return f"SolutionPath({len(self.pieces)} steps from {t0:g} to {t1:g})"

    def mapped(
        self,
        states: Callable[[Any], Any] | None = None,
        times: Callable[[Tensor], Tensor] | None = None,
        asked: Callable[[Tensor], Tensor] | None = None,
    ) -> SolutionPath:
        """The same path in other terms.

        Args:
            states: what its states are to be, out of states ``(B, ...)`` or ``(M, B, ...)``.
            times: what :attr:`times` is to be.
            asked: the time of this path that is meant by a time of the new one, both ``(M, 1)``
                or ``(M, B)``.
        """
        return replace(
            self,
            _states=_then(self._states, states),
            _shown=_then(self._shown, times),
            _asked=_then(asked, self._asked),
        )

    @cached_property
    def _steps(self) -> _Steps:
        """Found out where it is asked for first."""
        pieces, samples = self._complete(), self.y0.shape[0]
        paths, offsets = join(pieces)
        if any(piece.rows is not None for piece in pieces):
            return self._sorted(pieces, paths, offsets)
        ends = torch.stack([self._column(piece.end, samples) for piece in pieces], 1)
        everyone = torch.arange(samples, device=self.y0.device).unsqueeze(1)
        place = everyone + torch.tensor(offsets, device=self.y0.device)
        counts = torch.full_like(place[:, 0], len(pieces))
        shared = not any(isinstance(piece.end, Tensor) for piece in pieces)
        return _Steps(paths, self._starts(ends), ends, place, counts, shared)

    def _complete(self) -> tuple[Piece, ...]:
        """The pieces, with one of no length for samples that took no step."""
        pieces, y0 = self.pieces, self.y0
        if any(piece.rows is None for piece in pieces):
            return pieces
        absent = torch.ones(y0.shape[0], dtype=torch.bool, device=y0.device)
        for piece in pieces:
            absent[piece.rows] = False
        rows = absent.nonzero().view(-1)
        if not len(rows):
            return pieces
        still = Path(y0[rows], 1.0, line, (y0[rows],))
        return (*pieces, Piece(still, rows, self.span[0]))

    def _starts(self, ends: Tensor) -> Tensor:
        """Where the steps begin that end there: each where the one before it ended."""
        return torch.cat([torch.full_like(ends[:, :1], self.span[0]), ends[:, :-1]], 1)

    def _column(self, time: Increment, samples: int) -> Tensor:
        """A time of each sample, ``(samples,)``."""
        dtype, device = time_dtype(self.y0.device), self.y0.device
        return torch.as_tensor(time, dtype=dtype, device=device).expand(samples)

    def _sorted(
        self, pieces: Sequence[Piece], paths: tuple[Path, ...], offsets: Sequence[int]
    ) -> _Steps:
        """The steps of samples that have different ones."""
        everyone = torch.arange(self.y0.shape[0], device=self.y0.device)
        own = [everyone if piece.rows is None else piece.rows for piece in pieces]
        rows = torch.cat(own)
        offset = zip(offsets, own, strict=True)
        place = torch.cat([start + torch.arange(len(x), device=x.device) for start, x in offset])
        order = rows.argsort(stable=True)  # by sample, and of each as they were taken
        rows, place = rows[order], place[order]
        counts = rows.bincount(minlength=len(everyone))
        number = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]

        def table(values: Tensor, padding: float) -> Tensor:
            shape = len(everyone), int(counts.max())
            return values.new_full(shape, padding).index_put((rows, number), values)

        pairs = zip(pieces, own, strict=True)
        times = torch.cat([self._column(piece.end, len(x)) for piece, x in pairs])
        ends = table(times[order], torch.inf)
        return _Steps(paths, self._starts(ends), ends, table(place, 0), counts, False)

    def _at(self, t: Tensor) -> Tensor:
        """The states ``(M, B, ...)`` at times of each sample ``(M, B)``."""
        paths, starts, ends, place, counts, _ = self._steps
        slack = _SLACK * (self.span[1] - self.span[0])
        # (B, M); a sum, so that vmap has both in one layout.
        asked = (t.t() + torch.zeros_like(starts[:, :1])).contiguous()
        number = torch.searchsorted(ends, asked.detach())
        number = torch.minimum(number, counts.unsqueeze(1) - 1)
        begin, end = starts.gather(1, number), ends.gather(1, number)
        known = asked <= end + slack  # which no NaN is
        if self.until is not None:
            known = known & ~(asked > self.until.detach().to(t.dtype).unsqueeze(1) + slack)
        length = torch.where(end > begin, end - begin, 1.0)
        theta = torch.where(known, (asked - begin) / length, 0.0).t()  # (M, B)
        columns = [1] * (self.y0.ndim - 1)
        rows = place.gather(1, number).t().reshape(-1)
        states = states_at(paths, rows, theta.reshape(-1, *columns).to(self.y0.dtype))
        states = states.view(*t.shape, *self.y0.shape[1:])
        return torch.where(known.t().reshape(*t.shape, *columns), states, torch.nan)


def joined(
    parts: Sequence[tuple[SolutionPath, Tensor | None, Tensor | None]], span: tuple[float, float]
) -> SolutionPath:
    """The path of a solve that was made in parts, one after the other.

    Args:
        parts: of each its path; the places in the batch of its samples, None where all are there;
            and which of these count, bool, None for all. The first has all.
        span: of the whole.
    """
    first = parts[0][0]
    pieces: list[Piece] = []
    until = first.until
    for path, rows, counted in parts:
        for piece in path.pieces:
            if rows is not None:
                own = rows if piece.rows is None else rows[piece.rows]
                pieces.append(piece._replace(rows=own))
            else:
                pieces.append(piece if counted is None else piece.of_those(counted))
        if until is not None and path.until is not None and path is not first:
            stops = path.until
            if rows is not None:
                stops = until.index_copy(0, rows, stops)
            elif counted is not None:
                stops = torch.where(counted, stops, until)
            until = stops
    return replace(first, pieces=tuple(pieces), span=span, until=until)


def _then(
    first: Callable[[Tensor], Any] | None, second: Callable[[Tensor], Any] | None
) -> Callable[[Tensor], Any] | None:
    if first is None or second is None:
        return first or second
    return lambda value: second(first(value))
