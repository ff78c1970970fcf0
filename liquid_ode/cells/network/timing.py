"""How long each input of a sequence acts, and before which the state starts anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.checks import check_duration, check_durations
from liquid_ode.cells.network.packing import PackedSteps, Steps


@dataclass(frozen=True)
class Timing:
    """What a cell is told of its inputs besides the inputs.

    Attributes:
        durations: of all inputs alike, or data as the inputs are, without features.
        resets: bool data, likewise, or None.
    """

    durations: float | Tensor
    resets: Tensor | None

    @classmethod
    def of(
        cls,
        steps: Steps,
        durations: float | Tensor | PackedSequence | None,
        resets: Tensor | PackedSequence | None,
        x: Tensor,
    ) -> Timing:
        """What the user says of the inputs x.

        Raises:
            ValueError: where it is not of the kind, shape or lengths that fit.
        """
        times = _durations(steps, durations, x.dtype)
        return cls(times, None if resets is None else _resets(steps, resets))

    def reverse(self, steps: Steps) -> Timing:
        """That of the sequences from their ends, with resets at the same boundaries.

        What was before an input is now before the one that came first: one step later.
        """
        times, anew = self.durations, self.resets
        return Timing(
            steps.reverse(times) if isinstance(times, Tensor) else times,
            None if anew is None else steps.before(steps.reverse(anew)),
        )

    def parts(self, cut: Callable[[Tensor], Sequence[Tensor]], count: int) -> list[Timing]:
        """Those of so many parts into which the inputs are cut."""
        times: Sequence[float | Tensor] = [cast(float, self.durations)] * count
        if isinstance(self.durations, Tensor):
            times = cut(self.durations)
        anew = [None] * count if self.resets is None else cut(self.resets)
        return [Timing(*of_part) for of_part in zip(times, anew, strict=True)]

    def call(self, cell: RecurrentCell, x: Tensor, h: Tensor | None) -> Tensor:
        """The states of a cell under the inputs ``(T, B, *features)`` of a block."""
        states: Tensor = cell(x, h, durations=self.durations, resets=self.resets)
        return states


def _durations(
    steps: Steps, durations: float | Tensor | PackedSequence | None, dtype: torch.dtype
) -> float | Tensor:
    if durations is None:
        return 1.0
    if isinstance(durations, Real) and not isinstance(durations, bool):
        return check_duration(float(durations))
    if not isinstance(durations, (Tensor, PackedSequence)):
        raise ValueError(
            "durations must be a number, a tensor (torch.as_tensor makes one of a list or an "
            f"array) or a PackedSequence, not {type(durations).__name__}"
        )
    given = _dtype(durations)
    if given.is_complex or given == torch.bool:
        raise ValueError(f"durations must be real numbers, not {given}")
    if not given.is_floating_point:
        durations = durations.to(torch.promote_types(dtype, torch.float32))
    if isinstance(durations, Tensor) and not isinstance(steps, PackedSteps):
        check_durations(durations)  # in the user's own order
        return steps.of_each("durations", durations)
    times = steps.of_each("durations", durations)
    check_durations(times)
    return times


def _resets(steps: Steps, resets: Tensor | PackedSequence) -> Tensor:
    if not isinstance(resets, (Tensor, PackedSequence)):
        raise ValueError(
            "resets must be a bool tensor (torch.as_tensor makes one of a list or an array) or a "
            f"PackedSequence of one, not {type(resets).__name__}"
        )
    given = _dtype(resets)
    if given != torch.bool:
        raise ValueError(f"resets must be bool, not {given}: resets != 0 makes it of 0 and 1")
    return steps.of_each("resets", resets)


def _dtype(values: Tensor | PackedSequence) -> torch.dtype:
    # Not data.dtype of a tensor too, which vmap, and torch.export in torch 2.9, do not allow.
    return values.data.dtype if isinstance(values, PackedSequence) else values.dtype
