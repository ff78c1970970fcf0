"""The main system: blocks alternating liquid and residual processing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from liquid_ode.models.blocks import ResidualBlock
from liquid_ode.models.denoiser import Denoiser
from liquid_ode.models.liquid_part import LiquidPart
from liquid_ode.models.multiscale import LiquidBlock, budgets_by_scale, three_scales
from solvers import Euler, Solver


class ImprovedLiquid(Denoiser):
    """Three blocks, liquid, residual, liquid; the liquid ones work at three scales.

    Args:
        solver: drives every liquid cell, with the budget of its scale.
        num_classes: number of classes; None for an unconditional model.
        channels: width of the feature maps.
        hidden: state sizes of the global, local and detail processor.
        steps: their budgets of solver steps; one number for all three.
        grids: sides of the global and the local grid; detail is not pooled.
        pooling: how each of the two is pooled.
        inner: inner width of the residual block.
        conditioning: width of the conditioning vector.
        patch: side of the square of pixels that are stacked at one place of the feature maps.
        image_channels: of an image.
    """

    def __init__(
        self,
        *,
        solver: Solver = Euler(),
        num_classes: int | None = None,
        channels: int = 64,
        hidden: Sequence[int] = (16, 16, 40),
        steps: int | Sequence[int] = (3, 5, 7),
        grids: Sequence[int] = (4, 8),
        pooling: Sequence[str] = ("average", "average"),
        inner: int = 32,
        conditioning: int = 32,
        patch: int = 2,
        image_channels: int = 3,
    ) -> None:
        super().__init__(
            channels=channels,
            conditioning=conditioning,
            num_classes=num_classes,
            patch=patch,
            image_channels=image_channels,
        )
        scales = three_scales(hidden, steps, grids, pooling)

        def liquid() -> LiquidBlock:
            return LiquidBlock(channels, conditioning, scales, solver, neighbours=True)

        residual = ResidualBlock(channels, conditioning, inner=inner)
        self.blocks = nn.ModuleList([liquid(), residual, liquid()])

    def budgets(self) -> list[list[LiquidPart]]:
        return budgets_by_scale(self)

    def features(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, condition)
        return x
