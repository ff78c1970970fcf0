"""The closed forms of a CfC cell, as values, and the activation of its backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


class LeCunTanh(nn.Module):
    """1.7159 tanh(0.666 x), which keeps the variance of a standard input.

    Reference: LeCun et al., Efficient BackProp, 1998, section 4.4, with 2/3 rounded as in ncps.
    """

    gain, slope = 1.7159, 0.666

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * torch.tanh(self.slope * x)


class CfCForm(ABC):
    """How a CfC cell makes the new state of features x' and a duration d.

    A form has linear maps of x', each to the size H of the state. What is linear in them is folded
    once for a whole sequence; the rows of the folded maps, one below the other, are the heads.
    """

    maps: ClassVar[Sequence[str]]
    """Names of the linear maps."""
    vectors: ClassVar[Sequence[str]] = ()
    """Names of parameters ``(1, H)``."""

    def fold(self, maps: Mapping[str, Tensor], duration: float | None) -> Sequence[Tensor]:
        """The heads of weights (or biases) by name, for one duration, or None for one each."""
        return [maps[name] for name in self.maps]

    @abstractmethod
    def state(
        self, heads: Tensor, duration: float | Tensor, vectors: Sequence[Tensor], hidden: int
    ) -> Tensor:
        """The new state ``(B, H)`` of heads ``(B, k H)``; a tensor of durations is ``(B, 1)``."""


class BlendingForm(CfCForm):
    """Two states, and a gate that depends on the duration.

    f = tanh(W_f x' + b_f),  g = tanh(W_g x' + b_g),  s = σ(t_a(x') d + t_b(x')),
    t_a and t_b linear. The maps are called ``ff1``, ``ff2``, ``time_a`` and ``time_b``.

    The heads are those of f, g and s; and where every sample has a duration of its own, the logit
    of s is split into t_b and t_a.
    """

    maps = ("ff1", "ff2", "time_a", "time_b")

    def fold(self, maps: Mapping[str, Tensor], duration: float | None) -> Sequence[Tensor]:
        if duration is None:
            logit = [maps["time_b"], maps["time_a"]]
        else:
            logit = [torch.add(maps["time_b"], maps["time_a"], alpha=duration)]
        return [maps["ff1"], maps["ff2"], *logit]

    def state(
        self, heads: Tensor, duration: float | Tensor, vectors: Sequence[Tensor], hidden: int
    ) -> Tensor:
        f, g, logit, *pace = heads.split(hidden, 1)
        if isinstance(duration, Tensor):
            logit = torch.addcmul(logit, pace[0], duration)
        return self.blend(torch.tanh(f), torch.tanh(g), torch.sigmoid(logit))

    @abstractmethod
    def blend(self, f: Tensor, g: Tensor, s: Tensor) -> Tensor:
        """The new state of f, g and s, each ``(B, H)``."""


@dataclass(frozen=True)
class GatedForm(BlendingForm):
    """h1 = f (1 - s) + g s: the gate moves the state from f to g as time passes.

    Reference: Hasani et al., Closed-form continuous-time neural networks, Nature Machine
    Intelligence 2022 (CfC), with the logit of the gate as in ncps: linear in the duration.
    """

    def blend(self, f: Tensor, g: Tensor, s: Tensor) -> Tensor:
        return torch.lerp(f, g, s)


@dataclass(frozen=True)
class NoGateForm(BlendingForm):
    """h1 = f + g s: without the second gate. |h1| may reach 2.

    Reference: Hasani et al. 2022, the variant CfC-noGate.
    """

    def blend(self, f: Tensor, g: Tensor, s: Tensor) -> Tensor:
        return torch.addcmul(f, g, s)


@dataclass(frozen=True)
class PureForm(CfCForm):
    """h1 = A - A exp(-d (|w_τ| + |q|)) q, with q = W x' + b: the closed-form solution itself.

    The map is called ``ff1``, the vectors ``w_tau`` and ``A``, which |h1| may exceed.

    Reference: Hasani et al. 2022, the variant Cf-S.
    """

    maps = ("ff1",)
    vectors = ("w_tau", "A")

    def state(
        self, heads: Tensor, duration: float | Tensor, vectors: Sequence[Tensor], hidden: int
    ) -> Tensor:
        w_tau, scale = vectors
        rate = heads.abs() + w_tau.abs()
        decayed = torch.exp(-duration * rate) * heads
        return torch.addcmul(scale, scale, decayed, value=-1)
