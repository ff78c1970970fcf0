"""The shipped conformance suite for cells: what is no ordinary module fails it, check by check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from liquid_ode.cells import LiquidCell, LiquidField, testing
from tests.cells.testing.test_conformance_breaks import rejects


class Hoarding(LiquidCell):
    """Keeps a weight that it read when it was made."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.kept = [self.recurrent]

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        recurrent = self.kept[0].to(x.dtype)
        fields = super().fields(x, durations)
        return [LiquidField(recurrent, field.drive, field.rate) for field in fields]


class Registered(LiquidCell):
    """Takes its parameters from where torch registers them."""

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        own = dict(self.named_parameters())
        recurrent = own.get("recurrent", own.get("parametrizations.recurrent.original"))
        assert recurrent is not None
        fields = super().fields(x, durations)
        return [LiquidField(recurrent, field.drive, field.rate) for field in fields]


class Bypassing(LiquidCell):
    """Computes a sequence without calling itself."""

    def sequence(self, x: Tensor, h0: Tensor | None = None, durations: Any = None) -> Tensor:
        return self.forward(x, h0, durations=1.0 if durations is None else durations)


class Reading(LiquidCell):
    """Reads the weight of its layer, and does not call it."""

    def _drive(self, x: Tensor) -> Tensor:
        return F.linear(x, self.inputs.weight, self.inputs.bias)


def test_cells_that_are_no_ordinary_modules_fail() -> None:
    words = "should use recurrent as it is at each call, when it is parametrized, for its gradient"
    rejects(testing.check_replacement, Hoarding, words)
    rejects(testing.check_replacement, Registered, words)
    rejects(testing.check_hooks, Bypassing, "fire once in sequence, not 0 times")
    rejects(testing.check_hooks, Reading, "on inputs of Reading.* should fire: call it")


class Lenient(LiquidCell):
    """Casts its arguments, and clears what is not finite away."""

    def forward(self, x: Tensor, h0: Tensor | None = None, **more: Any) -> Tensor:
        x = x.to(self.recurrent) if x.is_floating_point() else x
        return super().forward(x, None if h0 is None else h0.to(x), **more)


class Hiding(LiquidCell):
    def forward(self, x: Tensor, h0: Tensor | None = None, **more: Any) -> Tensor:
        return super().forward(x.nan_to_num(), h0, **more)


def test_values_that_are_not_refused_fail() -> None:
    rejects(testing.check_bad_input, Lenient, "'x is torch.float32.*raises nothing")
    rejects(testing.check_bad_input, Hiding, "'x must be finite.*raises nothing")
