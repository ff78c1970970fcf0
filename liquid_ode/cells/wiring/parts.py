"""What a wiring is made of, checked and as values that nothing can edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Bounds = tuple[tuple[str, int, int], ...]
"""Name, first neuron and end of every layer."""


@dataclass(frozen=True)
class Mask:
    """A bool matrix as bytes, so that equal ones are equal."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def recurrent(cls, mask: Tensor) -> Mask:
        """Of a square matrix; ValueError where it is none."""
        rows = mask.shape[-1] if isinstance(mask, Tensor) and mask.ndim else 1
        return cls._checked(mask, rows, "a recurrent mask", "square bool matrix (units, units)")

    @classmethod
    def inputs(cls, mask: Tensor, units: int) -> Mask:
        """Of a matrix with a row for each neuron; ValueError where it is none."""
        return cls._checked(mask, units, "an input mask", f"bool matrix ({units}, input_size)")

    @classmethod
    def _checked(cls, mask: Tensor, rows: int, name: str, wanted: str) -> Mask:
        if not isinstance(mask, Tensor):
            raise ValueError(
                f"{name} must be a tensor, a {wanted}, not {type(mask).__name__}; "
                "torch.as_tensor makes one of an array or a list"
            )
        fits = mask.ndim == 2 and mask.numel() > 0 and mask.shape[0] == rows
        if mask.dtype != torch.bool or not fits:
            raise ValueError(
                f"{name} must be a {wanted} with at least one entry, "
                f"not {tuple(mask.shape)} {mask.dtype}; of weights, take weights != 0"
            )
        return cls(tuple(mask.shape), mask.cpu().contiguous().numpy().tobytes())

    @property
    def count(self) -> int:
        """How many entries are set."""
        return self.data.count(1)

    def tensor(self) -> Tensor:
        """A new tensor, on the CPU."""
        return torch.frombuffer(bytearray(self.data), dtype=torch.bool).view(self.shape)


def bounds(layers: Mapping[str, slice], units: int) -> Bounds:
    """The layers; ValueError where they do not cover the neurons in order."""
    wanted = (
        f"layers must map names to slices that cover the neurons 0..{units} in order, without "
        "gap or overlap, such as {'motor': slice(0, 2), 'inter': slice(2, 8)} for 8 neurons"
    )
    if not isinstance(layers, Mapping):
        raise ValueError(f"{wanted}; not {layers!r}")
    found, end = [], 0
    for name, part in layers.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"{wanted}; {name!r} is no name")
        fits = isinstance(part, slice) and part.step in (None, 1) and part.start == end
        if not (fits and isinstance(part.stop, int) and end < part.stop <= units):
            raise ValueError(f"{wanted}; {name!r} is {part!r}, where neuron {end} comes next")
        found.append((name, end, part.stop))
        end = part.stop
    if end != units:
        raise ValueError(f"{wanted}; they end at {end}")
    return tuple(found)
