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

from solvers.fields.base import LeakPullbackField, PullbackField, VectorField, knows_derivative
from solvers.fields.batch_parts import select
from solvers.gradients.backward_steps import Steps, sweep_of
from solvers.gradients.cache_chunks import row_chunks
from solvers.loop.integration import Integration
from solvers.methods.arithmetic import Increment
from solvers.methods.base import Attempt, BoundMethod, Method
from solvers.methods.relaxation import BoundLeak, Relaxation, relaxation_of
from solvers.solution import Solution
from solvers.transforms import under_transform

Known = PullbackField | LeakPullbackField


def solve_taped(integration: Integration, y0: Tensor) -> Solution | None:
    """The solution with a hand-written gradient, or None where this case needs autograd."""
    solutions: list[Solution] = []
    ends = solve_chain_taped(integration, [integration.field], y0, solutions)
    if ends is None:
        return None
    status = solutions[0].status[:1].expand(y0.shape[0])
    return replace(solutions[0], y=ends, status=status)


def solve_chain_taped(
    integration: Integration,
    fields: Sequence[VectorField],
    y0: Tensor,
    solutions: list[Solution] | None = None,
) -> Tensor | None:
    """The ends of a chain of problems ``(len(fields), *y0.shape)``, or None as above.

    That of a single problem has the shape of y0.

    Args:
        integration: how to solve each problem; its field is not looked at.
        fields: of the problems.
        y0: where the first starts.
        solutions: told the solution of each problem, for the rows of each chunk.
    """
    method = relaxation_of(integration.method)
    if method is None or under_transform() or not torch.is_grad_enabled():
        return None
    if not all(_is_taped(each, y0) for each in fields):
        return None
    links = _Links.of(cast(Sequence[Known], fields))
    if not any(tensor.requires_grad for tensor in (y0, *links.tensors)):
        return None
    integration = replace(integration, method=method)
    return _Trajectory.apply(integration, fields, links, solutions, y0, *links.tensors)


def _is_taped(field: VectorField, y0: Tensor) -> bool:
    if not knows_derivative(field):
        return False
    rate = cast(Known, field).rate
    return isinstance(rate, Tensor) and rate.shape == y0.shape and rate.dtype == y0.dtype


@dataclass(frozen=True)
class _Links:
    """Which tensors the fields of a chain are made of; one that several share is there once.

    Attributes:
        shapes: the fields without their tensors.
        places: of each field's rate and inputs in ``tensors``.
        tensors: those of all fields; dropped where autograd keeps them.
    """

    shapes: tuple[Known, ...]
    places: tuple[tuple[int, ...], ...]
    tensors: tuple[Tensor, ...] = field(repr=False)

    @staticmethod
    def of(fields: Sequence[Known]) -> _Links:
        tensors: list[Tensor] = []
        known: dict[int, int] = {}
        places = []
        for each in fields:
            own = (cast(Tensor, each.rate), *each.inputs)
            for tensor in own:
                if id(tensor) not in known:
                    known[id(tensor)] = len(tensors)
                    tensors.append(tensor)
            places.append(tuple(known[id(tensor)] for tensor in own))
        nothing = tensors[0].new_empty(0)
        shapes = [
            each.with_inputs(nothing, *[nothing] * (len(own) - 1))
            for each, own in zip(fields, places, strict=True)
        ]
        return _Links(tuple(shapes), tuple(places), tuple(tensors))

    @cached_property
    def once(self) -> frozenset[int]:
        """The places of tensors that one field alone is made of."""
        counts = Counter(place for own in self.places for place in own)
        return frozenset(place for place, count in counts.items() if count == 1)

    def without_tensors(self) -> _Links:
        return replace(self, tensors=())

    def fields(self, tensors: Sequence[Tensor]) -> list[Known]:
        """The fields, made of these tensors."""
        return [
            shape.with_inputs(*(tensors[place] for place in own))
            for shape, own in zip(self.shapes, self.places, strict=True)
        ]


class _Tape(Method):
    """A relaxation method that remembers the steps of one solve."""

    order, stages = 1, 1

    def __init__(self, method: Relaxation) -> None:
        self.method = method
        self.steps = Steps()

    def bind(self, field: VectorField) -> BoundMethod:
        return _BoundTape(self, self.method.bind(field))

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Attempt:
        raise NotImplementedError("a tape is used bound")


class _BoundTape(BoundMethod):
    def __init__(self, tape: _Tape, bound: BoundMethod) -> None:
        super().__init__(tape, bound.field)
        self.steps, self.bound = tape.steps, bound

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        target = self.bound.first(t, y)
        self.steps.states.append(y)
        self.steps.targets.append(target)
        if isinstance(self.bound, BoundLeak):
            self.steps.gains.append(self.bound.gain)
        return target

    def derivative(self, y: Tensor, first: Tensor) -> Tensor:
        return self.bound.derivative(y, first)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> Attempt:
        self.steps.sizes.append(dt)
        return self.bound.step(t, y, dt, first)


class _Trajectory(torch.autograd.Function):
    """The ends of the problems as a function of y0 and of what their fields are made of."""

    @staticmethod
    def forward(
        ctx: Any,
        integration: Integration,
        fields: Sequence[Known],
        links: _Links,
        solutions: list[Solution] | None,
        y0: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        chunks = row_chunks(replace(integration, field=fields[0]), y0)
        ctx.links = links.without_tensors()
        ctx.integration = replace(integration, field=ctx.links.shapes[0])
        ctx.chunks, ctx.sizes, saved, ends = chunks, [], [], []
        for rows in chunks:
            y, of_chunk = y0[rows], []
            for each in fields:
                tape = _Tape(cast(Relaxation, integration.method))
                part = _part(each, rows, chunks)
                if solutions is None:
                    y = integration.march(tape, part, y).y
                else:
                    solutions.append(replace(integration, method=tape, field=part).run(y))
                    y = solutions[-1].y
                of_chunk.append(y)
                saved += tape.steps.tensors()
                ctx.sizes.append(tape.steps.shared_sizes())
            # Not a view: the user could not edit one that was made in here.
            ends.append(torch.stack(of_chunk) if len(of_chunk) > 1 else y)
        ctx.save_for_backward(y0, *tensors, *saved)
        return ends[0] if len(ends) == 1 else torch.cat(ends, dim=int(len(fields) > 1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors  # read once: a checkpoint makes them again at each reading
        count = 1 + max(max(own) for own in ctx.links.places)
        y0, tensors = kept[0], kept[1 : 1 + count]
        fields = ctx.links.fields(tensors)
        if torch.is_grad_enabled():  # create_graph: a derivative of this one will be asked for
            found = _by_autograd(ctx.integration, fields, (y0, *tensors), grad)
            return None, None, None, None, *found
        saved, sizes = list(kept[1 + count :]), list(ctx.sizes)
        grads = grad if len(fields) > 1 else grad.unsqueeze(0)
        sweeps: list[list[Tensor | None]] = []
        for rows in reversed(ctx.chunks):  # the last chunk is still in the cache
            parts = [_part(each, rows, ctx.chunks) for each in fields]
            sums: list[Tensor | None] = [None] * count
            pulled: Tensor | None = None
            for end in range(len(parts) - 1, -1, -1):
                own = grads[end, rows] if len(ctx.chunks) > 1 else grads[end]
                pulled = own.clone() if pulled is None else pulled.add_(own)
                steps = Steps.taken_from(saved, sizes.pop(), parts[end])
                pulled, gradients = sweep_of(ctx.integration.method, parts[end]).run(steps, pulled)
                for place, value in zip(ctx.links.places[end], gradients, strict=True):
                    sums[place] = _added(sums[place], value, last=place in ctx.links.once)
            sweeps.insert(0, [pulled, *sums])
        joined = _joined(ctx.links, fields, ctx.chunks, sweeps)
        cast_back = (x.to(like.dtype) for x, like in zip(joined, (y0, *tensors), strict=True))
        return None, None, None, None, *cast_back


def _added(total: Tensor | None, value: Tensor, *, last: bool) -> Tensor:
    """The sum; in float32 at least, where many are to come."""
    if total is not None:
        return total.add_(value)
    return value if last else value.to(torch.promote_types(value.dtype, torch.float32))


def _by_autograd(
    integration: Integration, fields: Sequence[Known], tensors: Sequence[Tensor], grad: Tensor
) -> list[Tensor | None]:
    """The same gradients with a graph of their own, by solving once more."""
    y, ends = tensors[0], []
    for each in fields:
        y = replace(integration, field=each).run(y).y
        ends.append(y)
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    y = torch.stack(ends) if len(ends) > 1 else y
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
    return [next(found) if tensor.requires_grad else None for tensor in tensors]


def _part(field: Known, rows: slice, chunks: Sequence[slice]) -> Known:
    """The field of one chunk."""
    if len(chunks) == 1:
        return field
    return cast(Known, select(field, rows, cast(Tensor, field.rate).ndim))


def _joined(
    links: _Links,
    fields: Sequence[Known],
    chunks: Sequence[slice],
    sweeps: Sequence[Sequence[Tensor | None]],
) -> list[Tensor]:
    """The gradients of the chunks as those of the whole: rows side by side, shared ones added."""
    if len(sweeps) == 1:
        return cast(list[Tensor], sweeps[0])
    of_all = [False] * len(sweeps[0])
    for own, each in zip(links.places, fields, strict=True):
        kept = _part(each, chunks[0], chunks).inputs
        for place, a, b in zip(own[1:], kept, each.inputs, strict=True):
            of_all[1 + place] = a is b
    return [
        torch.stack(parts).sum(0) if shared else torch.cat(parts)
        for shared, parts in zip(of_all, zip(*cast(Any, sweeps), strict=True), strict=True)
    ]
