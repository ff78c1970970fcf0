"""A plain U-Net of the same size, for an honest comparison; and the shape that U-Nets have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.models.attention import SelfAttention
from liquid_ode.models.blocks import ResidualBlock, check_width
from liquid_ode.models.denoiser import Denoiser
from solvers import Solver

MakeBlock = Callable[[int, int, int], nn.Module]
"""A block from so many channels to so many, at a level: called as ``block(x, condition)``."""


class Stage(nn.Module):
    """Blocks at one resolution, each with attention behind it or not."""

    def __init__(self, blocks: Sequence[nn.Module], channels: int, *, attention: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = nn.ModuleList(SelfAttention(channels) for _ in blocks if attention)

    def forward(self, x: Tensor, condition: Any) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x, condition)
            if self.attention:
                x = self.attention[index](x)
        return x


class UShape(Denoiser):
    """Blocks on the way down and up, with skip connections between equal resolutions.

    Args:
        make_block: makes the blocks.
        widths: channels at full, half, quarter, ... resolution.
        blocks: at each resolution, on the way down and on the way up.
        attention: levels whose blocks are followed by self-attention, counted from 0, full
            resolution.

    The others are those of :class:`Denoiser`.
    """

    def __init__(
        self,
        make_block: MakeBlock,
        *,
        widths: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        **options: Any,
    ) -> None:
        if not widths or any(width % 8 for width in widths):
            raise ValueError(f"widths must be multiples of 8 (GroupNorm(8)), not {widths!r}")
        check_width("blocks", blocks)
        if any(level not in range(len(widths)) for level in attention):
            raise ValueError(
                f"attention must name levels from 0 to {len(widths) - 1}, not {list(attention)}"
            )
        super().__init__(channels=widths[0], **options)

        def stage(ins: int, outs: int, level: int) -> nn.Module:
            made = [make_block(outs if index else ins, outs, level) for index in range(blocks)]
            if blocks == 1 and level not in attention:
                return made[0]
            return Stage(made, outs, attention=level in attention)

        levels = range(len(widths))
        ins = [widths[0], *widths[:-1]]
        self.down = nn.ModuleList(stage(ins[level], widths[level], level) for level in levels)
        self.middle = stage(widths[-1], widths[-1], levels[-1])
        self.up = nn.ModuleList(
            stage(2 * widths[level], ins[level], level) for level in reversed(levels)
        )

    def features(self, x: Tensor, condition: Any) -> Tensor:
        smallest = 2 ** (len(self.down) - 1)
        if min(x.shape[-2:]) < smallest:
            raise ValueError(
                f"a U-Net of {len(self.down)} levels needs images of at least {smallest} pixels a "
                f"side, not {x.shape[-2]}x{x.shape[-1]}"
            )
        skips = []
        for level, stage in enumerate(self.down):
            if level:
                x = F.avg_pool2d(x, 2)
            x = stage(x, condition)
            skips.append(x)
        x = self.middle(x, condition)
        for level, stage in enumerate(self.up):
            skip = skips.pop()
            if level:
                x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = stage(torch.cat([x, skip], dim=1), condition)
        return x


class UNet(UShape):
    """Residual blocks on the way down and up, with skip connections.

    Reference: Ronneberger et al. 2015; Ho et al. 2020, appendix B.

    Args:
        solver: not used; taken so that every model is created alike.
        num_classes: number of classes; None for an unconditional model.
        widths: channels at full, half, quarter, ... resolution.
        blocks: at each resolution, on the way down and on the way up.
        attention: levels whose blocks are followed by self-attention, counted from 0, full
            resolution.
        conditioning: width of the conditioning vector.
        image_channels: of an image.
    """

    def __init__(
        self,
        *,
        solver: Solver | None = None,
        num_classes: int | None = None,
        widths: Sequence[int] = (16, 24, 24),
        blocks: int = 1,
        attention: Sequence[int] = (),
        conditioning: int = 28,
        image_channels: int = 3,
    ) -> None:
        def block(ins: int, outs: int, level: int) -> ResidualBlock:
            return ResidualBlock(ins, conditioning, inner=outs, out_channels=outs)

        super().__init__(
            block,
            widths=widths,
            blocks=blocks,
            attention=attention,
            conditioning=conditioning,
            num_classes=num_classes,
            image_channels=image_channels,
        )
