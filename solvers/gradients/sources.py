"""The tensors that a field is made of: those that it names, and those that its graph comes from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from solvers.fields.base import RelaxationField, VectorField
from solvers.fields.batch_parts import WrappedFunction

OTHERS = "take Backpropagation() or Checkpointing()"


def with_own_tensors(
    field: Any, parameters: tuple[Tensor, ...] | None = None
) -> tuple[VectorField, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The field, of leaves of its own in place of the tensors that it names.

    With it those tensors and the leaves, of what wants a gradient. Where one of them is made of
    another, the gradient then does not go from one to the other inside the solve, and is not
    counted twice. ``parameters`` take the place of those of the module that the field is.
    """
    own = _parameters(field) if parameters is None else _wanted(parameters)
    if isinstance(field, nn.Module):
        return field, own, own
    tensors: tuple[Tensor, ...] = getattr(field, "tensors", ())
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    if not wanted:
        return field, own, own
    leaves = {id(tensor): tensor.detach().requires_grad_() for tensor in wanted}
    field = field.with_tensors(*(leaves.get(id(tensor), tensor) for tensor in tensors))
    once = {id(tensor): tensor for tensor in wanted}  # a tensor may be named twice
    leaf = tuple(leaves[key] for key in once)
    return field, (*once.values(), *own), (*leaf, *own)


def _parameters(field: Any) -> tuple[Tensor, ...]:
    """The parameters of the module that the field is, or is made of."""
    while isinstance(field, (WrappedFunction, RelaxationField)):
        field = field.function
    if not isinstance(field, nn.Module):
        return ()
    return _wanted(field.parameters())


def _wanted(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor.requires_grad)


class Sources:
    """Where the graph of a field comes from: the leaves besides those that are known."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        self.known = {id(tensor) for tensor in own}
        self.nodes: set[Any] = set()
        self.leaves: list[Tensor] = []
        self.open = False
        """Whether it was looked for others, and is at every evaluation."""

    def find(self, slope: Any) -> None:
        """Look for others in the graph of an evaluation."""
        self.open = True
        self.leaves = [leaf for leaf in self._leaves(slope) if id(leaf) not in self.known]
        self.known |= {id(leaf) for leaf in self.leaves}

    def _leaves(self, slope: Any) -> list[Tensor]:
        """The leaves of nodes that were not met before, which are met from then on."""
        if not isinstance(slope, Tensor) or not slope.requires_grad:
            return []
        if slope.grad_fn is None:
            return [slope]
        found, waiting, met = [], [slope.grad_fn], self.nodes
        while waiting:
            node = waiting.pop()
            if node in met:
                continue
            met.add(node)
            parents = node.next_functions
            if not parents and hasattr(node, "variable"):
                found.append(node.variable)
            waiting += [parent for parent, _ in parents if parent is not None]
        return found

    def check(self, slope: Tensor, y: Tensor) -> None:
        """Raise ValueError where an evaluation comes from a leaf that the first did not."""
        if not self.open:
            return
        seen = self.nodes
        self.nodes = set(seen)
        new = [leaf for leaf in self._leaves(slope) if id(leaf) not in self.known and leaf is not y]
        self.nodes = seen
        if new:
            raise ValueError(
                "BacksolveAdjoint: the field uses a tensor of shape "
                f"{tuple(new[0].shape)} that it did not use at t0, so that its gradient would be "
                "lost. Name it, as an argument of solvers.ParameterisedField or a parameter of an "
                f"nn.Module that is the field; or {OTHERS}"
            )
