"""States that are not one real tensor: structures of tensors, and complex ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from solvers.fields.base import check_like
from solvers.fields.batch_parts import WrappedFunction, is_selectable
from solvers.fields.jacobians import Jacobian, own_jacobian

Key = int | str
_HALF = {torch.float16, torch.bfloat16}


def leaves_of(structure: Any, path: str = "y0") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested tuples, lists and mappings, with how it is reached."""
    if isinstance(structure, Mapping):
        for key, value in structure.items():
            yield from leaves_of(value, f"{path}[{key!r}]")
    elif isinstance(structure, (tuple, list)):
        for index, value in enumerate(structure):
            yield from leaves_of(value, f"{path}[{index}]")
    else:
        yield path, structure


def rebuilt(structure: Any, leaves: Iterator[Any]) -> Any:
    """A structure like this one, of other leaves."""
    if isinstance(structure, Mapping):
        return {key: rebuilt(value, leaves) for key, value in structure.items()}
    if isinstance(structure, (tuple, list)):
        parts = [rebuilt(value, leaves) for value in structure]
        if hasattr(structure, "_fields"):  # a named tuple
            return type(structure)(*parts)
        return parts if isinstance(structure, list) else tuple(parts)
    return next(leaves)


@dataclass(frozen=True, eq=False)
class Layout:
    """How the tensors of a state lie beside each other in one real tensor.

    The packed state is ``(B, N)`` where one of the tensors has two axes or more and all have the
    same first one, the batch; else ``(N,)``, one system. Complex numbers are two real ones.

    Attributes:
        structure: the state as it was given; its tensors say shapes and types.
        batch: ``(B,)``, or ``()`` for one system.
        dtype: of the packed state.
    """

    structure: Any
    batch: torch.Size
    dtype: torch.dtype

    @classmethod
    def of(cls, y0: Any) -> Layout:
        """The layout of a state.

        Raises:
            ValueError: where there are no tensors in it, or others than of floating-point or
                complex numbers.
        """
        found = list(leaves_of(y0))
        if not found:
            raise ValueError("y0 must have at least one tensor")
        for path, leaf in found:
            _check_leaf(path, leaf)
        tensors = [leaf for _, leaf in found]
        dtype = tensors[0].real.dtype
        for leaf in tensors[1:]:
            dtype = torch.promote_types(dtype, leaf.real.dtype)
        sizes = {leaf.shape[:1] for leaf in tensors}
        rows = len(sizes) == 1 and max(leaf.ndim for leaf in tensors) > 1
        return cls(y0, sizes.pop() if rows else torch.Size(), dtype)

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for _, leaf in leaves_of(self.structure)]

    @property
    def axes(self) -> int:
        """Of the tensor that has most of them."""
        return max(leaf.ndim for leaf in self.tensors)

    @property
    def rounding(self) -> Tensor | None:
        """The rounding of half precision in the parts that have it, ``(N,)``; None without any."""
        if not any(leaf.dtype in _HALF for leaf in self.tensors):
            return None
        return torch.cat(
            [
                torch.full((self.width(leaf),), eps, device=leaf.device)
                for leaf in self.tensors
                for eps in (torch.finfo(leaf.dtype).eps if leaf.dtype in _HALF else 1e-30,)
            ]
        )

    def pack(self, structure: Any, what: str = "y0") -> Tensor:
        """One tensor of a structure like the state.

        Raises:
            ValueError: where it is another structure, or a tensor of another shape or type.
        """
        own, given = dict(leaves_of(self.structure, "")), dict(leaves_of(structure, ""))
        if own.keys() != given.keys():
            raise ValueError(
                f"{what} must have the structure of y0, with {_listed(own)}; it has "
                f"{_listed(given)}"
            )
        parts = []
        for path, leaf in own.items():
            value = check_like(given[path], leaf, f"{what}{path}" if path else what)
            if value.is_complex():
                value = torch.view_as_real(value.resolve_conj())
            parts.append(_shaped(value, (*self.batch, self.width(leaf))).to(self.dtype))
        return torch.cat(parts, -1)

    def unpack(self, packed: Tensor) -> Any:
        """The structure of a packed state, or of several: ``(..., *batch, N)``."""
        lead = packed.shape[: packed.ndim - 1]
        own = self.tensors
        sizes = [self.width(leaf) for leaf in own]
        parts = []
        for leaf, part in zip(own, packed.split(sizes, -1), strict=True):
            shape = (*lead, *leaf.shape[len(self.batch) :])
            if leaf.is_complex():
                real = part.to(leaf.real.dtype).reshape(*shape, 2)
                parts.append(torch.view_as_complex(real.contiguous()))
            else:
                parts.append(_shaped(part.to(leaf.dtype), shape))
        return rebuilt(self.structure, iter(parts))

    def width(self, leaf: Tensor) -> int:
        """How many real numbers of a sample a tensor has."""
        return math.prod(leaf.shape[len(self.batch) :]) * (2 if leaf.is_complex() else 1)

    def spread(self, name: str, value: Any) -> Any:
        """A number or tensors for the parts of a state, one that broadcasts to the packed state.

        Args:
            name: what it is, for the error.
            value: a number or a tensor, for every tensor of the state; or a structure like the
                state, or like its outer part, of these.

        Raises:
            ValueError: where it has another structure, or does not broadcast.
        """
        if isinstance(value, (int, float)):
            return value
        parts = []
        dtype = torch.promote_types(self.dtype, torch.float32)  # 1e-9 is 0 in float16
        for leaf, own in zip(self.tensors, _prefix(name, self.structure, value), strict=True):
            number = torch.as_tensor(own, dtype=dtype, device=leaf.device)
            rows = number.ndim == leaf.ndim and bool(self.batch)
            try:
                number = number.broadcast_to(leaf.shape[0 if rows else len(self.batch) :])
            except RuntimeError as error:
                raise ValueError(
                    f"{name} of shape {tuple(number.shape)} does not broadcast to a part of the "
                    f"state of shape {tuple(leaf.shape)}"
                ) from error
            if leaf.is_complex():
                number = number.unsqueeze(-1).expand(*number.shape, 2)
            parts.append(number.reshape(*(self.batch if rows else ()), self.width(leaf)))
        if any(part.ndim > 1 for part in parts):  # a row for each sample
            parts = [part.expand(*self.batch, part.shape[-1]) for part in parts]
        return torch.cat(parts, -1)


def _shaped(x: Tensor, shape: Sequence[int]) -> Tensor:
    """It in a shape, itself where it has that: a view would be a node of the graph."""
    return x if tuple(x.shape) == tuple(shape) else x.reshape(shape)


def _check_leaf(path: str, leaf: Any) -> None:
    if not isinstance(leaf, Tensor):
        raise ValueError(
            f"y0 must be a tensor, or tuples, lists and dicts of tensors; {path} is "
            f"{type(leaf).__name__}"
        )
    if not (leaf.is_floating_point() or leaf.is_complex()):
        raise ValueError(f"{path} must be floating point or complex, not {leaf.dtype}")


def _listed(leaves: Mapping[str, Any]) -> str:
    return ", ".join(path or "one tensor" for path in leaves) or "nothing"


def _prefix(name: str, structure: Any, value: Any) -> Iterator[Any]:
    """The value for every leaf, where one stands for all below it."""
    if isinstance(value, (Tensor, int, float)):
        yield from (value for _ in leaves_of(structure))
        return
    own = dict(_children(structure))
    given = dict(_children(value))
    if own.keys() != given.keys() or not own:
        raise ValueError(
            f"{name} must be a number, a tensor, or have the structure of the state, with "
            f"{', '.join(map(repr, own)) or 'one tensor'}; it has "
            f"{', '.join(map(repr, given)) or repr(value)}"
        )
    for key, part in own.items():
        yield from _prefix(name, part, given[key])


def _children(value: Any) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, Mapping):
        return iter(value.items())
    return enumerate(value) if isinstance(value, (tuple, list)) else iter(())


class OfStructure(WrappedFunction):
    """A function of a structure, for packed states; of a field, or with one value a sample.

    t comes with as many axes as the tensor of the state that has most.
    """

    def __call__(self, t: Tensor, y: Tensor) -> Any:
        layout: Layout
        layout, packs = self.settings
        if t.ndim:
            t = t.view(-1, *[1] * (layout.axes - 1))
        value = self.function(t, layout.unpack(y))
        return _like_rows(layout, value, y) if packs else value


def _like_rows(layout: Layout, value: Any, y: Tensor) -> Tensor:
    """The packed derivative of the rows that ``y`` has."""
    if layout.batch and y.shape[:-1] != layout.batch:  # some of the samples
        layout = Layout(layout.unpack(y), y.shape[:-1], layout.dtype)
    return layout.pack(value, "field(t, y)")


class WithArguments(WrappedFunction):
    """A function of t, y and more, of which the rest is given.

    It cannot be asked for some samples: which of the rest has rows of them is not known.
    """

    selectable = False

    @property
    def independent(self) -> bool:
        return is_selectable(self.function) or super().independent

    def __call__(self, t: Tensor, y: Any) -> Any:
        return cast(Callable[..., Any], self.function)(t, y, *self.settings)

    @property
    def jacobian(self) -> Jacobian | None:
        own: Callable[..., Tensor] | None = own_jacobian(self.function)
        return None if own is None else lambda t, y: own(t, y, *self.settings)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*(x for x in self.settings if isinstance(x, Tensor)), *super().tensors)

    def with_tensors(self, *tensors: Tensor) -> WithArguments:
        given = iter(tensors)
        settings = [next(given) if isinstance(x, Tensor) else x for x in self.settings]
        rest = tuple(given)
        function = self.function.with_tensors(*rest) if rest else self.function
        return WithArguments(function, *settings)
