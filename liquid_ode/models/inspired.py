"""A convolutional baseline that imitates a liquid network without solving an ODE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from liquid_ode.models.blocks import ConditionedNorm, check_width
from liquid_ode.models.denoiser import Denoiser
from solvers import Solver


class GatedBlock(nn.Module):
    """One step towards a target at an input-dependent rate: x + gate(n) (tanh(target(n)) - n).

    n is the conditioned norm of x. It is the form of a liquid cell's explicit Euler step, with
    the gate in the place of dt / tau, but learned freely and taken once.
    """

    def __init__(self, channels: int, conditioning: int, *, inner: int) -> None:
        super().__init__()
        check_width("inner", inner)
        self.norm = ConditionedNorm(channels, conditioning)
        self.target = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(inner, channels, 3, padding=1),
        )
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        n = self.norm(x, condition)
        return torch.addcmul(x, torch.sigmoid(self.gate(n)), torch.tanh(self.target(n)) - n)


class InspiredConv(Denoiser):
    """Gated convolutional blocks at full resolution.

    Args:
        solver: not used; taken so that every model is created alike.
        num_classes: number of classes; None for an unconditional model.
        channels: width of the feature maps.
        blocks: number of blocks.
        inner: inner width of a block's target.
        conditioning: width of the conditioning vector.
        image_channels: of an image.
    """

    def __init__(
        self,
        *,
        solver: Solver | None = None,
        num_classes: int | None = None,
        channels: int = 64,
        blocks: int = 3,
        inner: int = 16,
        conditioning: int = 28,
        image_channels: int = 3,
    ) -> None:
        super().__init__(
            channels=channels,
            conditioning=conditioning,
            num_classes=num_classes,
            image_channels=image_channels,
        )
        check_width("blocks", blocks)
        self.blocks = nn.ModuleList(
            GatedBlock(channels, conditioning, inner=inner) for _ in range(blocks)
        )

    def features(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, condition)
        return x
