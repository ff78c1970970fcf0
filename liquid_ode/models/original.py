"""The pure liquid model: nothing between the first and the last convolution but liquid blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from liquid_ode.models.blocks import check_width
from liquid_ode.models.denoiser import Denoiser
from liquid_ode.models.liquid_part import LiquidPart
from liquid_ode.models.multiscale import LiquidBlock, budgets_by_scale, three_scales
from solvers import Euler, Solver


class OriginalLiquid(Denoiser):
    """Liquid blocks with global, local and detail processors, and no other processing.

    Args:
        solver: drives every liquid cell, with the budget of its scale.
        num_classes: number of classes; None for an unconditional model.
        channels: width of the feature maps.
        blocks: number of liquid blocks.
        hidden: state sizes of the global, local and detail processor.
        steps: their budgets of solver steps; one number for all three.
        grids: sides of the global and the local grid; detail is not pooled.
        pooling: how each of the two is pooled.
        conditioning: width of the conditioning vector.
        image_channels: of an image.
    """

    def __init__(
        self,
        *,
        solver: Solver = Euler(),
        num_classes: int | None = None,
        channels: int = 32,
        blocks: int = 2,
        hidden: Sequence[int] = (32, 40, 32),
        steps: int | Sequence[int] = (3, 5, 7),
        grids: Sequence[int] = (4, 8),
        pooling: Sequence[str] = ("average", "average"),
        conditioning: int = 32,
        image_channels: int = 3,
    ) -> None:
        super().__init__(
            channels=channels,
            conditioning=conditioning,
            num_classes=num_classes,
            image_channels=image_channels,
        )
        check_width("blocks", blocks)
        scales = three_scales(hidden, steps, grids, pooling)
        self.blocks = nn.ModuleList(
            LiquidBlock(channels, conditioning, scales, solver, neighbours=False)
            for _ in range(blocks)
        )

    def budgets(self) -> list[list[LiquidPart]]:
        return budgets_by_scale(self)

    def features(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, condition)
        return x
