"""Steps that were taken, kept as the pieces of a path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.methods.arithmetic import Increment, time_dtype
from solvers.methods.interpolation import Path


class Piece(NamedTuple):
    """One step that was taken.

    Attributes:
        path: the states within it, of the samples that took it.
        rows: those samples' places in the batch ``(k,)``; None where it was all of them.
        end: when it ended, a number or of each sample ``(k,)``.
    """

    path: Path
    rows: Tensor | None
    end: Increment

    @staticmethod
    def of(
        path: Path,
        rows: Tensor | None,
        t1: float,
        remaining: Increment,
        accepted: Tensor | None,
        *,
        last: bool,
    ) -> Piece:
        """The piece of a step.

        Args:
            path: the states within it.
            rows: places in the batch of the samples that were evaluated; None where all are there.
            t1: end of the time span.
            remaining: the time that remains after it.
            accepted: which samples take it, ``(n, 1, ..., 1)``; None for all.
            last: whether it reaches t1, whatever rounding says.
        """
        if not torch.is_grad_enabled():  # what is not recorded has no gradient later either
            path = path.detach()
        end: Increment = t1 if last else t1 - remaining
        if isinstance(remaining, Tensor) and not last:  # as precise as there is
            end = t1 - remaining.detach().view(-1).to(time_dtype(remaining.device))
        if accepted is None or bool(accepted.all()):
            return Piece(path, rows, end)
        which = accepted.view(-1).nonzero().view(-1)
        end = end[which] if isinstance(end, Tensor) else end
        return Piece(path.select(which), which if rows is None else rows[which], end)

    def of_those(self, counted: Tensor) -> Piece:
        """The piece of the samples that count, bool ``(B,)``."""
        rows = self.rows
        if rows is None:
            rows = torch.arange(len(counted), device=counted.device)
        which = counted[rows].nonzero().view(-1)
        end = self.end[which] if isinstance(self.end, Tensor) else self.end
        return Piece(self.path.select(which), rows[which], end)


def _alike(one: Callable[..., Tensor], other: Callable[..., Tensor]) -> bool:
    """Whether two formulas are known to be one."""
    if one is other:
        return True
    if not (isinstance(one, partial) and isinstance(other, partial)):
        return False
    same = one.func is other.func and one.keywords == other.keywords
    return same and one.args == other.args


def join(pieces: Sequence[Piece]) -> tuple[tuple[Path, ...], list[int]]:
    """The steps as few paths, one for each formula; and where each begins, counted through."""
    groups: list[list[int]] = []
    for index, piece in enumerate(pieces):
        formula = piece.path.formula
        for group in groups:
            if _alike(pieces[group[0]].path.formula, formula):
                group.append(index)
                break
        else:
            groups.append([index])
    offsets, total = [0] * len(pieces), 0
    for group in groups:
        for index in group:
            offsets[index], total = total, total + pieces[index].path.y.shape[0]
    return tuple(_cat([pieces[index].path for index in group]) for group in groups), offsets


def _cat(paths: Sequence[Path]) -> Path:
    """Paths of one formula as one, row after row."""
    first = paths[0]
    if len(paths) == 1:
        return first
    dt = first.dt
    if any(isinstance(path.dt, Tensor) or path.dt != dt for path in paths):
        dt = torch.cat([_rows_of(path) for path in paths])
    values = zip(*(path.values for path in paths), strict=True)
    y = torch.cat([path.y for path in paths])
    return Path(y, dt, first.formula, tuple(torch.cat(each) for each in values))


def _rows_of(path: Path) -> Tensor:
    """The size of the step of each sample, ``(n, 1, ..., 1)``."""
    shape = path.y.shape[0], *[1] * (path.y.ndim - 1)
    return torch.as_tensor(path.dt, dtype=path.y.dtype, device=path.y.device).expand(shape)


def states_at(paths: Sequence[Path], rows: Tensor, theta: Tensor) -> Tensor:
    """The states at fractions of some steps, whose places are counted through all paths."""
    if len(paths) == 1:
        return paths[0].select(rows).at(theta)
    states, offset = torch.zeros((), dtype=theta.dtype, device=theta.device), 0
    for path in paths:
        size = path.y.shape[0]
        local = (rows - offset).clamp(0, size - 1)
        inside = ((rows >= offset) & (rows < offset + size)).view(theta.shape)
        found = path.select(local).at(torch.where(inside, theta, 0.0))
        states, offset = torch.where(inside, found, states), offset + size
    return states
