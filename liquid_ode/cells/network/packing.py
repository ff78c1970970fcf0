"""The steps of a batch of sequences, time first, whether of equal length or packed.

A recurrent network goes over them in blocks ``(k, n, *features)``: k steps that the same n samples
take. A tensor is one block. In a :class:`~torch.nn.utils.rnn.PackedSequence` the samples are sorted
by length, so that those which have ended are the last ones, and a block ends where a sample does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence


class Steps(ABC):
    """How the steps of a batch of sequences lie in memory.

    ``data`` below are values of all steps: ``(T, B, *features)`` for :class:`EqualSteps`, and
    ``(N, *features)`` for :class:`PackedSteps`.
    """

    @property
    @abstractmethod
    def length(self) -> int:
        """Steps of the longest sequence."""

    @property
    @abstractmethod
    def state_axes(self) -> tuple[int, ...]:
        """The axis of the samples in a state as the user has it: none if unbatched."""

    @abstractmethod
    def blocks(self, data: Tensor) -> Sequence[Tensor]:
        """The data of each block, ``(k, n, *features)``."""

    @abstractmethod
    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        """The data of which these are the blocks."""

    @abstractmethod
    def reverse(self, data: Tensor) -> Tensor:
        """Every sequence from its own last step to its first. Twice, it changes nothing."""

    @abstractmethod
    def before(self, data: Tensor) -> Tensor:
        """At every step the data of the one before it, zeros at the first of each sequence."""

    @abstractmethod
    def of_each(self, name: str, values: Tensor | PackedSequence) -> Tensor:
        """The user's value of each input as data without features.

        A single value is that of every input, ``(T,)`` those of the inputs of all samples alike;
        and each sample may have its own, also with a last axis of 1.

        Raises:
            ValueError: where they are not of the shape, or the lengths, of the inputs.
        """

    @abstractmethod
    def take_state(self, h: Tensor) -> Tensor:
        """States ``(count, B, *state)``, the samples in the order of the data."""

    @abstractmethod
    def give_state(self, h: Tensor) -> Tensor:
        """The inverse of :meth:`take_state`."""

    @abstractmethod
    def give_data(self, data: Tensor) -> Tensor | PackedSequence:
        """Data as the user gave the inputs."""


@dataclass(frozen=True)
class EqualSteps(Steps):
    """Sequences of equal length, a tensor ``(T, B, *features)``.

    Attributes:
        batched: whether the user's tensor has an axis of samples.
        batch_first: whether that axis comes before time.
    """

    steps: int
    batch: int
    batched: bool
    batch_first: bool

    @classmethod
    def of(cls, x: Tensor, *, batched: bool, batch_first: bool) -> EqualSteps:
        """The steps of the user's tensor."""
        if not batched:
            return cls(x.shape[0], 1, batched, batch_first)
        batch, steps = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
        return cls(steps, batch, batched, batch_first)

    @property
    def length(self) -> int:
        return self.steps

    @property
    def state_axes(self) -> tuple[int, ...]:
        return (self.batch,) if self.batched else ()

    def blocks(self, data: Tensor) -> Sequence[Tensor]:
        return (data,)

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        return blocks[0]

    def reverse(self, data: Tensor) -> Tensor:
        return data.flip(0)

    def before(self, data: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(data[:1]), data[:-1]])

    def of_each(self, name: str, values: Tensor | PackedSequence) -> Tensor:
        if isinstance(values, PackedSequence):
            raise ValueError(f"{name} are packed, x is not: pack both, or neither")
        own = (self.steps, *self.state_axes)
        if self.batched and self.batch_first:
            own = (self.batch, self.steps)
        shape = tuple(values.shape)
        if shape == (*own, 1):
            return self.take_data(values.squeeze(-1))
        if shape == own:
            return self.take_data(values)
        if shape in {(), (self.steps,)}:  # if of one axis, it is that of time
            return values.reshape(-1, 1).expand(self.steps, self.batch)
        of_all = f", or {(self.steps,)} for all samples alike" if self.batched else ""
        raise ValueError(
            f"{name} must have shape {own} or {(*own, 1)}{of_all}, or be a single one, not {shape}"
        )

    def take_data(self, x: Tensor) -> Tensor:
        """The user's tensor, time first and with an axis of samples."""
        if not self.batched:
            return x.unsqueeze(1)
        return x.transpose(0, 1) if self.batch_first else x

    def take_state(self, h: Tensor) -> Tensor:
        return h if self.batched else h.unsqueeze(1)

    def give_state(self, h: Tensor) -> Tensor:
        return h if self.batched else h.squeeze(1)

    def give_data(self, data: Tensor) -> Tensor:
        if not self.batched:
            return data.squeeze(1)
        return data.transpose(0, 1) if self.batch_first else data


class PackedSteps(Steps):
    """Sequences of their own lengths, rows ``(N, *features)`` sorted by time.

    Args:
        packed: the inputs.
        batch_first: whether padded values of each input are ``(B, T)``, else ``(T, B)``.
    """

    def __init__(self, packed: PackedSequence, batch_first: bool) -> None:
        self.packed = packed
        self.batch_first = batch_first
        sizes: list[int] = packed.batch_sizes.tolist()
        self.batch = sizes[0]
        self.shapes = [(len(list(run)), size) for size, run in groupby(sizes)]  # (k, n)

    @property
    def length(self) -> int:
        return len(self.packed.batch_sizes)

    @property
    def state_axes(self) -> tuple[int, ...]:
        return (self.batch,)

    def blocks(self, data: Tensor) -> Sequence[Tensor]:
        parts = data.split([k * n for k, n in self.shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        rows = [block.flatten(0, 1) for block in blocks]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def reverse(self, data: Tensor) -> Tensor:
        return data.index_select(0, self._backwards.to(data.device))

    def before(self, data: Tensor) -> Tensor:
        time, sample, first = (index.to(data.device) for index in self._rows)
        found = data.index_select(0, first[(time - 1).clamp_min(0)] + sample)
        return found.masked_fill((time == 0).reshape(-1, *[1] * (data.ndim - 1)), 0)

    def of_each(self, name: str, values: Tensor | PackedSequence) -> Tensor:
        if isinstance(values, PackedSequence):
            values = self._padded(name, values)
        elif tuple(values.shape) in {(), (self.length,)}:
            values = values.reshape(-1, 1).expand(self.length, self.batch)
        else:
            values = self._time_first(name, values)
        time, sample, _ = (index.to(values.device) for index in self._rows)
        if self.packed.sorted_indices is not None:
            sample = self.packed.sorted_indices.to(values.device)[sample]
        return values[time, sample]

    def take_state(self, h: Tensor) -> Tensor:
        order = self.packed.sorted_indices
        return h if order is None else h.index_select(1, order)

    def give_state(self, h: Tensor) -> Tensor:
        order = self.packed.unsorted_indices
        return h if order is None else h.index_select(1, order)

    def give_data(self, data: Tensor) -> PackedSequence:
        of_x = self.packed
        return PackedSequence(data, of_x.batch_sizes, of_x.sorted_indices, of_x.unsorted_indices)

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """The step and the sample of every row, ``(N,)``, and the first row of every step."""
        sizes = self.packed.batch_sizes
        first = sizes.cumsum(0) - sizes
        time = torch.arange(self.length).repeat_interleave(sizes)
        return time, torch.arange(len(time)) - first[time], first

    @cached_property
    def _backwards(self) -> Tensor:
        """The row that takes the place of every row when each sequence is reversed, ``(N,)``."""
        time, sample, first = self._rows
        return first[_lengths(self.packed)[sample] - 1 - time] + sample

    def _time_first(self, name: str, values: Tensor) -> Tensor:
        """Padded values as ``(T, B)``."""
        padded = values.squeeze(-1) if values.ndim == 3 and values.shape[-1] == 1 else values
        padded = padded.t() if self.batch_first and padded.ndim == 2 else padded
        if padded.ndim != 2 or padded.shape[0] < self.length or padded.shape[1] != self.batch:
            shape = "(B, T)" if self.batch_first else "(T, B)"
            raise ValueError(
                f"{name} of a packed sequence must be packed with its lengths, or padded, "
                f"{shape} with B = {self.batch} and T of at least the longest length "
                f"{self.length}; or a single one, or {(self.length,)} for all samples alike; "
                f"not {tuple(values.shape)}"
            )
        return padded

    def _padded(self, name: str, values: PackedSequence) -> Tensor:
        """Packed values as ``(T, B)``, in whatever order they were packed."""
        if values.data.shape[1:].numel() != 1:
            raise ValueError(
                f"the data of packed {name} must have shape (N,) or (N, 1), "
                f"not {tuple(values.data.shape)}"
            )
        padded, lengths = pad_packed_sequence(values)
        expected = _lengths(self.packed)
        if self.packed.unsorted_indices is not None:
            expected = expected[self.packed.unsorted_indices.to(expected.device)]
        if not torch.equal(lengths, expected):
            raise ValueError(
                f"{name} must be packed with the lengths of x, {expected.tolist()}, "
                f"not {lengths.tolist()}"
            )
        return padded.reshape(padded.shape[:2])


def _lengths(packed: PackedSequence) -> Tensor:
    """The length of every sample, longest first, ``(B,)``."""
    sizes = packed.batch_sizes
    # They do not increase: a sample takes all steps but those at the end of too few samples.
    return len(sizes) - torch.searchsorted(sizes.flip(0), torch.arange(int(sizes[0])), right=True)


def steps_of(
    x: Tensor | PackedSequence, feature_axes: int, size: int, *, batch_first: bool
) -> tuple[Steps, Tensor]:
    """How inputs lie in time, and their data.

    Raises:
        ValueError: where they are none, or of another shape.
    """
    features = f"{size}" + "".join(f", {name}" for name in "HWD"[: feature_axes - 1])
    if isinstance(x, PackedSequence):
        if x.data.ndim != 1 + feature_axes or x.data.shape[-feature_axes] != size:
            raise ValueError(
                f"the data of a packed x must have shape (N, {features}), not {tuple(x.data.shape)}"
            )
        return PackedSteps(x, batch_first), x.data
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor or a PackedSequence, not {type(x).__name__}")
    lead = x.ndim - feature_axes
    if lead not in {1, 2} or x.shape[-feature_axes] != size:
        order = "B, T" if batch_first else "T, B"
        raise ValueError(
            f"x must have shape ({order}, {features}), or (T, {features}) unbatched, "
            f"not {tuple(x.shape)}"
        )
    steps = EqualSteps.of(x, batched=lead == 2, batch_first=batch_first)
    if steps.length == 0:
        raise ValueError(f"the sequence is empty: x has shape {tuple(x.shape)}")
    return steps, steps.take_data(x)
