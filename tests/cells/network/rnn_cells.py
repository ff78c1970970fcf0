"""Cells without a solver to put into a LiquidRNN, and problems for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from liquid_ode import LiquidRNN
from liquid_ode.cells import RecurrentCell

BATCH, LENGTH, INPUT, HIDDEN = 4, 7, 3, 5


class PlainCell(RecurrentCell):
    """dh/dt = tanh(W x) - h, solved exactly. It has neither a solver nor a wiring."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.inputs = self.weights()

    def weights(self) -> nn.Module:
        return nn.Linear(self.input_size, self.hidden_size)

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        targets = torch.tanh(self.inputs(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        h = torch.zeros_like(targets[0]) if h0 is None else h0
        kept = torch.exp(-torch.as_tensor(duration, dtype=x.dtype)).expand_as(targets)
        states = []
        for target, part in zip(targets, kept, strict=True):
            h = target + part * (h - target)
            states.append(h)
        return torch.stack(states)


class MapCell(PlainCell):
    """The same at every pixel of a map by itself."""

    feature_axes: ClassVar[int] = 3

    def weights(self) -> nn.Module:
        return nn.Conv2d(self.input_size, self.hidden_size, 1)

    def state_shape(self, features: Sequence[int]) -> tuple[int, ...]:
        return (self.hidden_size, *features[1:])


def make(**options: Any) -> LiquidRNN:
    torch.manual_seed(0)
    return LiquidRNN(INPUT, HIDDEN, dtype=torch.float64, **options)


def problem(
    batch: int = BATCH, length: int = LENGTH, features: tuple[int, ...] = (INPUT,)
) -> tuple[Tensor, Tensor]:
    """Inputs and durations, of which one is zero."""
    x = torch.randn(batch, length, *features, dtype=torch.float64)
    durations = torch.rand(batch, length, dtype=torch.float64)
    durations[0, 1] = 0
    return x, durations


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)
