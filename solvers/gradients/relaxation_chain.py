"""Relaxation steps with a hand-written gradient, for fields that know their own derivative.

Autograd would record and revisit every intermediate of every step. Here the steps run without
it; the states and targets are kept, and one backward sweep pulls the gradient through them. It
is the exact gradient of the steps taken (discretise, then optimise), in a third of the kernels.
Several problems, each of which starts where the one before it ended, are one such sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from solvers.fields.base import RelaxationField, VectorField
from solvers.fields.derivatives import knows_derivative
from solvers.gradients.backward_steps import Trajectory, sweep
from solvers.gradients.cache_chunks import row_chunks
from solvers.gradients.hand_written import HandWritten
from solvers.loop.integration import Integration
from solvers.loop.problem import Problem
from solvers.methods.relaxation import Relaxation
from solvers.solution import Solution, Stats, all_finite, all_succeeded
from solvers.step_size.rules import BudgetRule


def solve_relaxation(integration: Integration) -> Solution | None:
    """The solution with a hand-written gradient, or None where this case needs autograd."""
    problem, rule = integration.problem, integration.rule
    if problem.times is not None or problem.dense or integration.observe is not None:
        return None
    y = solve_chain(integration, [problem.field])
    if y is None:
        return None
    if not all_finite(y.detach()):  # to say which sample, and why
        return integration.run()
    steps = cast(BudgetRule, rule).steps
    return Solution(y, None, Stats(steps, steps), all_succeeded(y), succeeded=True)


def solve_chain(
    integration: Integration, fields: Sequence[VectorField], restarts: Tensor | None = None
) -> Tensor | None:
    """The ends of a chain of problems ``(len(fields), *y0.shape)``, or None as above.

    That of a single problem has the shape of y0.

    Args:
        integration: how to solve each problem, and where the first starts; its field is not
            looked at.
        fields: of the problems.
        restarts: bool ``(len(fields), B, 1, ..., 1)``, which samples start a problem from zero.
    """
    y0, rule = integration.problem.y0, integration.rule
    if not isinstance(rule, BudgetRule) or integration.problem.events:
        return None
    if torch.compiler.is_compiling() or not all(_is_whole(each, y0) for each in fields):
        return None
    if y0.numel() < _SMALL and not _records(y0, cast(Sequence[RelaxationField], fields)):
        return None  # nothing to write over that would not be in the cache anyway
    method = integration.bind(fields[0]).method
    if not isinstance(method, Relaxation):
        return None
    links = _Links.of(cast(Sequence[RelaxationField], fields))
    span = integration.problem.t_span
    chain = _Chain(method, rule, span, links.without_tensors(), restarts is not None)
    # An input as the others are, batched by vmap: a number, since all inputs have gradients.
    return chain(y0, *links.tensors, *(() if restarts is None else (restarts.to(y0.dtype),)))


_SMALL = 2**15


def _records(y0: Tensor, fields: Sequence[RelaxationField]) -> bool:
    """Whether a gradient will be asked for."""
    return torch.is_grad_enabled() and (
        y0.requires_grad or any(x.requires_grad for each in fields for x in each.tensors)
    )


def _is_whole(field: VectorField, y0: Tensor) -> bool:
    """Whether the field knows its derivative, and has a rate for every element of the state."""
    if not knows_derivative(field):
        return False
    rate = cast(RelaxationField, field).rate
    return isinstance(rate, Tensor) and rate.shape == y0.shape and rate.dtype == y0.dtype


@dataclass(frozen=True)
class _Links:
    """Which tensors the fields of a chain are made of; one that several share is there once.

    Attributes:
        shapes: the fields without their tensors.
        places: of each field's rate and its function's tensors in ``tensors``.
        tensors: those of all fields; dropped where autograd keeps them.
    """

    shapes: tuple[RelaxationField, ...]
    places: tuple[tuple[int, ...], ...]
    tensors: tuple[Tensor, ...] = field(repr=False)

    @staticmethod
    def of(fields: Sequence[RelaxationField]) -> _Links:
        tensors: list[Tensor] = []
        known: dict[int, int] = {}
        places = []
        for each in fields:
            own = each.tensors  # read once: they may be made at each reading
            for tensor in own:
                if id(tensor) not in known:
                    known[id(tensor)] = len(tensors)
                    tensors.append(tensor)
            places.append(tuple(known[id(tensor)] for tensor in own))
        nothing = tensors[0].new_empty(0)
        shapes = [
            each.with_tensors(*[nothing] * len(own_places))
            for each, own_places in zip(fields, places, strict=True)
        ]
        return _Links(tuple(shapes), tuple(places), tuple(tensors))

    @cached_property
    def once(self) -> frozenset[int]:
        """The places of tensors that one field alone is made of."""
        counts = Counter(place for own in self.places for place in own)
        return frozenset(place for place, count in counts.items() if count == 1)

    def without_tensors(self) -> _Links:
        return replace(self, tensors=())

    def fields(self, tensors: Sequence[Tensor]) -> list[RelaxationField]:
        """The fields, made of these tensors."""
        return [
            shape.with_tensors(*(tensors[place] for place in own))
            for shape, own in zip(self.shapes, self.places, strict=True)
        ]


@dataclass(eq=False)
class _Chain(HandWritten):
    """The ends of the problems as a function of y0 and of what their fields are made of."""

    method: Relaxation
    rule: BudgetRule
    span: tuple[float, float]
    links: _Links
    restarting: bool
    chunks: list[slice] = field(default_factory=list)
    sizes: list[list[float | None]] = field(default_factory=list)

    def plain(self, *inputs: Tensor) -> Tensor:
        y, ends = inputs[0], []
        for each, anew in zip(self.links.fields(inputs[1:]), self._restarts(inputs), strict=True):
            y = y if anew is None else y.masked_fill(anew, 0)
            y = Integration(Problem(each, y, self.span), self.method, self.rule).integrate().y
            ends.append(y)
        return torch.stack(ends) if len(ends) > 1 else y

    def forward(self, inputs: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
        y0, fields = inputs[0], self.links.fields(inputs[1:])
        # The targets are the solver's to overwrite: fewer arrays in the cache.
        method = self.method if keep else replace(self.method, overwrites=True)
        self.chunks, self.sizes = row_chunks(Problem(fields[0], y0, self.span)), []
        saved: list[Tensor] = []
        ends = []
        for rows in self.chunks:
            y, of_chunk = y0[rows], []
            for each, anew in zip(fields, self._restarts(inputs, rows), strict=True):
                y = y if anew is None else y.masked_fill(anew, 0)
                problem = Problem(_part(each, rows, self.chunks), y, self.span)
                trajectory = Trajectory()
                observe = trajectory.note if keep else None
                y = Integration(problem, method, self.rule, observe=observe).integrate().y
                of_chunk.append(y)
                saved += trajectory.tensors()
                self.sizes.append(trajectory.shared_sizes())
            ends.append(torch.stack(of_chunk) if len(of_chunk) > 1 else y)
        return ends[0] if len(ends) == 1 else torch.cat(ends, dim=int(len(fields) > 1)), saved

    def backward(
        self, inputs: Sequence[Tensor], kept: Sequence[Tensor], grad: Tensor
    ) -> Sequence[Tensor]:
        fields, given = self.links.fields(inputs[1:]), len(inputs) - self.restarting
        saved, sizes = list(kept), list(self.sizes)
        grads = grad if len(fields) > 1 else grad.unsqueeze(0)
        sweeps: list[list[Tensor | None]] = []
        for rows in reversed(self.chunks):  # the last chunk is still in the cache
            parts = [_part(each, rows, self.chunks) for each in fields]
            restarts = self._restarts(inputs, rows)
            sums: list[Tensor | None] = [None] * (given - 1)
            pulled: Tensor | None = None
            for end in range(len(parts) - 1, -1, -1):
                own = grads[end, rows] if len(self.chunks) > 1 else grads[end]
                pulled = own.clone() if pulled is None else pulled.add_(own)
                trajectory = Trajectory.taken_from(saved, sizes.pop(), parts[end])
                pulled, gradients = sweep(self.method, parts[end], trajectory, pulled)
                anew = restarts[end]
                pulled = pulled if anew is None else pulled.masked_fill_(anew, 0)
                for place, value in zip(self.links.places[end], gradients, strict=True):
                    sums[place] = _added(sums[place], value, last=place in self.links.once)
            sweeps.insert(0, [pulled, *sums])
        joined = self._joined(fields, sweeps)
        found = [x.to(like.dtype) for x, like in zip(joined, inputs[:given], strict=True)]
        return [*found, *map(torch.zeros_like, inputs[given:])]

    def _restarts(
        self, inputs: Sequence[Tensor], rows: slice = slice(None)
    ) -> Sequence[Tensor | None]:
        """Which samples of a chunk start each problem from zero; the last input, if any do."""
        if not self.restarting:
            return [None] * len(self.links.shapes)
        return (inputs[-1][:, rows] != 0).unbind()

    def _joined(
        self, fields: Sequence[RelaxationField], sweeps: Sequence[Sequence[Tensor | None]]
    ) -> list[Tensor]:
        """The gradients of the chunks as those of the whole: rows together, shared ones added."""
        if len(sweeps) == 1:
            return cast(list[Tensor], sweeps[0])
        of_all = [False] * len(sweeps[0])
        for own, each in zip(self.links.places, fields, strict=True):
            kept = _part(each, self.chunks[0], self.chunks).tensors
            for place, a, b in zip(own, kept, each.tensors, strict=True):
                of_all[1 + place] = a.shape == b.shape  # as of some rows
        return [
            torch.stack(parts).sum(0) if shared else torch.cat(parts)
            for shared, parts in zip(of_all, zip(*cast(Any, sweeps), strict=True), strict=True)
        ]


def _added(total: Tensor | None, value: Tensor, *, last: bool) -> Tensor:
    """The sum; in float32 at least, where many are to come."""
    if total is not None:
        return total.add_(value)
    return value if last else value.to(torch.promote_types(value.dtype, torch.float32))


def _part(field: RelaxationField, rows: slice, chunks: Sequence[slice]) -> RelaxationField:
    """The field of one chunk."""
    return field if len(chunks) == 1 else field.select(rows)
