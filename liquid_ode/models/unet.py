"""A plain U-Net of the same size, for an honest comparison."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.models.blocks import ResidualBlock
from liquid_ode.models.denoiser import Denoiser
from solvers import Solver


class UNet(Denoiser):
    """Residual blocks on the way down and up, with skip connections; no attention.

    Reference: Ronneberger et al. 2015; Ho et al. 2020, appendix B, without its attention.

    Args:
        solver: not used; taken so that every model is created alike.
        num_classes: number of classes; None for an unconditional model.
        widths: channels at full, half, quarter, ... resolution.
        conditioning: width of the conditioning vector.
    """

    def __init__(
        self,
        *,
        solver: Solver | None = None,
        num_classes: int | None = None,
        widths: Sequence[int] = (16, 24, 24),
        conditioning: int = 28,
    ) -> None:
        if not widths or any(width % 8 for width in widths):
            raise ValueError(f"widths must be multiples of 8 (GroupNorm(8)), not {widths!r}")
        super().__init__(channels=widths[0], conditioning=conditioning, num_classes=num_classes)

        def block(width_in: int, width_out: int) -> ResidualBlock:
            return ResidualBlock(width_in, conditioning, inner=width_out, out_channels=width_out)

        ins = [widths[0], *widths[:-1]]
        self.down = nn.ModuleList(block(a, b) for a, b in zip(ins, widths, strict=True))
        self.middle = block(widths[-1], widths[-1])
        self.up = nn.ModuleList(
            block(2 * b, a) for a, b in zip(reversed(ins), reversed(widths), strict=True)
        )

    def features(self, x: Tensor, condition: Tensor) -> Tensor:
        smallest = 2 ** (len(self.down) - 1)
        if min(x.shape[-2:]) < smallest:
            raise ValueError(
                f"a U-Net of {len(self.down)} levels needs images of at least {smallest} pixels a "
                f"side, not {x.shape[-2]}x{x.shape[-1]}"
            )
        skips = []
        for level, block in enumerate(self.down):
            if level:
                x = F.avg_pool2d(x, 2)
            x = block(x, condition)
            skips.append(x)
        x = self.middle(x, condition)
        for level, block in enumerate(self.up):
            skip = skips.pop()
            if level:
                x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = block(torch.cat([x, skip], dim=1), condition)
        return x
