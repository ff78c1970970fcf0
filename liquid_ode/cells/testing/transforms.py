"""Checks that a gradient is the same in whichever way it is asked for."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.ode import ODECell
from liquid_ode.cells.testing.gradients import with_plain_gradient
from liquid_ode.cells.testing.samples import (
    Make,
    Samples,
    is_exact,
    made,
    named,
    parameters_of,
    with_solver,
)
from solvers import Backpropagation, NativeSolver
from solvers.testing.kinds import require, require_close

BATCH = 2
SLACK = 1e-9
# Of finite differences.
WIDTH = 1e-5
# Of a gradient in bfloat16, relative to its size.
ROUNDED = 0.25


def check_transforms(make: Make) -> None:
    """Gradients over several calls are the same in every way that torch has of asking for them.

    Of two calls, the second of which starts where the first ended, the gradients for inputs, state,
    durations and parameters that a plain ``backward`` gives (see :func:`check_gradients`) must also
    come with ``create_graph``, for several losses at a time (``is_grads_batched``), from
    ``torch.func`` (``grad``, ``vmap`` of it, ``jvp``), under a checkpoint, in another thread, and
    for some of the tensors alone; under autocast nearly so. Differentiated once more they must be
    those of finite differences, backwards and forwards, with work that grows as the number of
    calls does. A state that was detached lets none through, and one that was changed in place
    keeps its gradient, or says that it cannot.

    Cells whose solver decides on its steps by a tolerance, or is another package's, are left alone:
    there no transform of torch sees through the solve.

    Raises:
        AssertionError: where a gradient is another, or cannot be had.
    """
    cell = made(make)
    if not _is_transparent(cell):
        return
    if isinstance(cell, ODECell) and isinstance(cell.solver, NativeSolver):
        cell = with_solver(cell, replace(cell.solver, gradient=Backpropagation()))
    calls = _Calls(cell)
    expected = calls.gradients(calls.leaves)
    _check_detached(calls)
    _check_in_place(calls)
    _check_work(calls)
    for way, ask in _WAYS.items():
        with _explained(cell, way):
            found = ask(calls)
        for name, ours, theirs in zip(calls.names, found, expected, strict=True):
            what = f"the gradient of {name} of {named(cell)} should be that of backward {way}"
            require_close(ours, theirs, what, SLACK)
    _check_second(calls)
    _check_forwards(calls, expected)
    _check_autocast(cell)


def _is_transparent(cell: RecurrentCell) -> bool:
    """Whether its steps are known, and taken by plain operations of torch."""
    if not isinstance(cell, ODECell):
        return True
    return is_exact(cell) and isinstance(cell.solver, (NativeSolver, nn.Module))


class _Calls(nn.Module):
    """Calls of a cell with the state handed on, as a loss of inputs, state and durations.

    Attributes:
        given: the arguments.
        leaves: the arguments and the parameters of the cell.
        names: of these.
    """

    def __init__(self, cell: RecurrentCell) -> None:
        super().__init__()
        self.cell, self.samples = cell, Samples(cell)
        samples = self.samples
        given = samples.inputs(2, BATCH), samples.states(BATCH), samples.durations(2, BATCH)
        self.given = [tensor.requires_grad_() for tensor in given]
        own = parameters_of(cell)
        self.leaves = [*self.given, *own.values()]
        self.names = ["x", "h0", "durations", *own]

    def forward(self, x: Tensor, h0: Tensor, durations: Tensor) -> Tensor:
        h = self.cell.sequence(x, h0, durations)[-1]
        return self.cell(x[0], h, duration=0.7).square().sum()

    def of_tensors(self, *tensors: Tensor) -> Tensor:
        """The loss as a function of all that it depends on, in the order of the leaves."""
        own = dict(zip(self.names[3:], tensors[3:], strict=True))
        values = {f"cell.{name}": value for name, value in own.items()}
        return cast(Tensor, torch.func.functional_call(self, values, tensors[:3]))

    def gradients(
        self, leaves: Sequence[Tensor], *, create_graph: bool = False
    ) -> Sequence[Tensor]:
        return torch.autograd.grad(self(*self.given), leaves, create_graph=create_graph)

    def second_gradients(self, along: Sequence[Tensor]) -> Sequence[Tensor]:
        """Those of the slope along a direction."""
        first = self.gradients(self.leaves, create_graph=True)
        return torch.autograd.grad(first, self.leaves, along, materialize_grads=True)

    @property
    def values(self) -> tuple[Tensor, ...]:
        return tuple(leaf.detach() for leaf in self.leaves)

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(range(len(self.leaves)))


def _again(calls: _Calls) -> Sequence[Tensor]:
    return calls.gradients(calls.leaves, create_graph=True)


def _batched(calls: _Calls) -> Sequence[Tensor]:
    factors = torch.tensor([3.0, 1.0], dtype=calls.samples.dtype)
    loss = calls(*calls.given)
    found = torch.autograd.grad(loss, calls.leaves, factors, is_grads_batched=True)
    return [both[1] for both in found]


def _functional(calls: _Calls) -> Sequence[Tensor]:
    return torch.func.grad(calls.of_tensors, calls.places)(*calls.values)


def _mapped(calls: _Calls) -> Sequence[Tensor]:
    # A cell looks at durations, which are the same for all.
    axes = tuple(None if index == 2 else 0 for index in calls.places)
    stacked = [
        value if axis is None else torch.stack((value + 1, value))
        for value, axis in zip(calls.values, axes, strict=True)
    ]
    found = torch.vmap(torch.func.grad(calls.of_tensors, calls.places), in_dims=axes)(*stacked)
    return [both[1] for both in found]


def _checkpointed(calls: _Calls) -> Sequence[Tensor]:
    loss = checkpoint(calls, *calls.given, use_reentrant=False)
    return torch.autograd.grad(loss, calls.leaves)


def _of_some(calls: _Calls) -> Sequence[Tensor]:
    """Of every other tensor, then of the rest."""
    found: dict[int, Tensor] = {}
    for first in (0, 1):
        some = calls.places[first::2]
        try:
            for index, leaf in enumerate(calls.leaves):
                leaf.requires_grad_(index in some)
            wanted = [calls.leaves[index] for index in some]
            found |= dict(zip(some, calls.gradients(wanted), strict=True))
        finally:
            for leaf in calls.leaves:
                leaf.requires_grad_()
    return [found[index] for index in calls.places]


def _in_a_thread(calls: _Calls) -> Sequence[Tensor]:
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.extend(calls.gradients(calls.leaves)))
    thread.start()
    thread.join()
    return found


_AGAIN = "with create_graph=True"
_WAYS: dict[str, Callable[[_Calls], Sequence[Tensor]]] = {
    _AGAIN: _again,
    "with is_grads_batched=True": _batched,
    "by torch.func.grad": _functional,
    "by torch.vmap of torch.func.grad": _mapped,
    "under torch.utils.checkpoint": _checkpointed,
    "where only some tensors require a gradient": _of_some,
    "in another thread": _in_a_thread,
}


@contextmanager
def _explained(cell: RecurrentCell, way: str) -> Iterator[None]:
    """Say of an error whose it is."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{named(cell)} should give a gradient {way}, but: {error}") from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Of torch's own parts, on the first use of jvp."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script")
        yield


def _directions(calls: _Calls) -> tuple[Tensor, ...]:
    generator = calls.samples.generator
    return tuple(
        torch.randn(value.shape, generator=generator, dtype=value.dtype) for value in calls.values
    )


def _check_forwards(calls: _Calls, gradients: Sequence[Tensor]) -> None:
    """torch.func.jvp gives the slope along a direction, and that of the gradient."""
    cell, along = calls.cell, _directions(calls)
    with _explained(cell, "by torch.func.jvp"), _without_warnings():
        found = torch.func.jvp(calls.of_tensors, calls.values, along)[1]
    pairs = zip(gradients, along, strict=True)
    expected = torch.stack([(gradient * way).sum() for gradient, way in pairs]).sum()
    what = f"the slope of {named(cell)} by torch.func.jvp should be that of its gradient"
    require_close(found, expected, what, SLACK)
    with _explained(cell, "by torch.func.jvp of torch.func.grad"), _without_warnings():
        slope = torch.func.grad(calls.of_tensors, calls.places)
        tangents = torch.func.jvp(slope, calls.values, along)[1]
    wanted = calls.second_gradients(along)
    for name, ours, theirs in zip(calls.names, tangents, wanted, strict=True):
        what = (
            f"the derivative of the gradient of {name} of {named(cell)} should be the same "
            "backwards (create_graph=True) and forwards (torch.func.jvp of torch.func.grad)"
        )
        require_close(ours, theirs, what, SLACK)


def _check_second(calls: _Calls) -> None:
    """Against finite differences of the gradient, which see steps change: so those are equal."""
    cell = calls.cell
    if isinstance(cell, ODECell):
        calls = _Calls(with_solver(cell, with_plain_gradient(cell.solver)))
    along = _directions(calls)

    def gradients(shift: float) -> Sequence[Tensor]:
        moved = [value + shift * way for value, way in zip(calls.values, along, strict=True)]
        leaves = [tensor.requires_grad_() for tensor in moved]
        return torch.autograd.grad(calls.of_tensors(*leaves), leaves)

    pairs = zip(gradients(WIDTH), gradients(-WIDTH), strict=True)
    expected = [(above - below) / (2 * WIDTH) for above, below in pairs]
    found = calls.second_gradients(along)
    for name, ours, theirs in zip(calls.names, found, expected, strict=True):
        what = (
            f"the gradient of the gradient of {name} of {named(cell)} (create_graph=True) should "
            "be that of finite differences"
        )
        require_close(ours, theirs, what, 1e-5)


def _check_detached(calls: _Calls) -> None:
    """Truncated backpropagation: what comes after a detached state does not reach before it."""
    x, h0, durations = calls.given
    h = calls.cell.sequence(x, h0, durations)[-1].detach()
    loss = calls.cell.sequence(x.detach(), h, durations.detach()).square().sum()
    found = torch.autograd.grad(loss, calls.given, allow_unused=True)
    for name, gradient in zip(calls.names, found, strict=False):
        require(
            gradient is None or not bool(gradient.any()),
            f"a state of {named(calls.cell)} that was detached should let no gradient through, "
            f"but one reaches {name} of the calls before it",
        )


def _check_in_place(calls: _Calls) -> None:
    x, h0, durations = calls.given
    cell, x, durations = calls.cell, x.detach(), durations.detach()
    leaves = calls.leaves[3:]

    def gradients(change: Callable[[Tensor], Tensor]) -> Sequence[Tensor]:
        h = change(cell.sequence(x, h0, durations)[-1])
        return torch.autograd.grad(cell(x[0], h).square().sum(), leaves, allow_unused=True)

    expected = gradients(lambda h: 0.5 * h)
    try:
        found = gradients(lambda h: h.mul_(0.5))
    except RuntimeError as error:
        if "inplace" in str(error) or "in-place" in str(error):
            return
        raise
    for name, ours, theirs in zip(calls.names[3:], found, expected, strict=True):
        what = (
            f"the gradient of {name} of {named(cell)} should be the same where a state is "
            "multiplied in place"
        )
        if ours is not None and theirs is not None:
            require_close(ours, theirs, what, SLACK)


def _check_work(calls: _Calls) -> None:
    """Products are counted, as their number does not depend on the machine."""
    x, h0 = (tensor.detach() for tensor in calls.given[:2])  # the counter leaves hooks on them

    def work(count: int) -> int:
        h = h0
        with FlopCounterMode(display=False) as counter, _explained(calls.cell, _AGAIN):
            for _ in range(count):
                h = calls.cell(x[0], h)
            torch.autograd.grad(h.square().sum(), calls.leaves[3:], create_graph=True)
        return int(counter.get_total_flops())

    few, some, many = work(1), work(2), work(3)
    require(
        many - some <= 1.25 * (some - few),
        f"the work of {named(calls.cell)} should grow as the number of calls does, also with "
        f"create_graph=True, but 1, 2 and 3 calls take {few:,}, {some:,} and {many:,} operations",
    )


def _check_autocast(cell: RecurrentCell) -> None:
    cell = copy.deepcopy(cell).float()
    calls = _Calls(cell)

    def norms(gradients: Sequence[Tensor], like: Sequence[Tensor]) -> Iterator[tuple[float, float]]:
        for ours, theirs in zip(gradients, like, strict=True):
            yield float((ours - theirs).detach().norm()), float(theirs.norm())

    expected = calls.gradients(calls.leaves)
    largest = max(size for _, size in norms(expected, expected))
    for create_graph in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            loss = calls(*calls.given)
        with _explained(cell, "under autocast to bfloat16"):
            found = torch.autograd.grad(loss, calls.leaves, create_graph=create_graph)
        for name, (off, size) in zip(calls.names, norms(found, expected), strict=True):
            require(
                off <= ROUNDED * (size + 0.1 * largest),
                f"under autocast to bfloat16, with create_graph={create_graph}, the gradient of "
                f"{name} of {named(cell)} should be close to that in float32, but is off by "
                f"{off:.1e} of {size:.1e}",
            )
