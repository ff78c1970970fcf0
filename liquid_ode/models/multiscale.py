"""Multi-scale liquid processing of a feature map.

At each scale the map is pooled to a grid, and every cell of the grid is the constant input of a
liquid cell that starts at rest and flows for one unit of time. The results are fused by a
learned map and go back to the full size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.cells import LiquidCell
from liquid_ode.models.blocks import ConditionedNorm, check_width
from liquid_ode.models.liquid_part import LiquidPart
from liquid_ode.models.resample import average_pool, upsample
from solvers import Solver

_POOLINGS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "average": average_pool,
    "max": F.adaptive_max_pool2d,
}


@dataclass(frozen=True)
class Scale:
    """One scale of the processing.

    Args:
        grid: side of the pooled grid; None leaves the map as it is (1x1 windows).
        hidden: size of the liquid state.
        steps: budget of solver steps; a solver driven by a tolerance takes what it needs.
        pooling: ``average`` or ``max`` (whose gradient is not deterministic on CUDA).

    Raises:
        ValueError: where a number is below 1 or the pooling is unknown.
    """

    grid: int | None
    hidden: int
    steps: int
    pooling: str = "average"

    def __post_init__(self) -> None:
        if self.pooling not in _POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(_POOLINGS)}, not {self.pooling!r}")
        for name in ("grid", "hidden", "steps"):
            value = getattr(self, name)
            if value is not None:
                check_width(name, value)


class LiquidProcessor(LiquidPart):
    """A liquid cell at every place of a pooled grid, read out to the map's channels.

    Takes ``(B, channels, H, W)`` and returns ``(B, channels, grid, grid)``.
    """

    def __init__(self, channels: int, scale: Scale, solver: Solver) -> None:
        super().__init__(scale.steps)
        self.scale = scale
        self.cell = LiquidCell(channels, scale.hidden, solver=solver.with_steps(scale.steps))
        self.readout = nn.Linear(scale.hidden, channels, bias=False)

    def stop_after(self, steps: int) -> None:
        super().stop_after(steps)
        self.cell.solver = self.cell.solver.with_steps(steps)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale.grid is not None:
            x = _POOLINGS[self.scale.pooling](x, self.scale.grid)
        places = x.permute(0, 2, 3, 1)
        state = self.cell(places, duration=self.duration)  # (B, grid, grid, hidden)
        return self.readout(state).permute(0, 3, 1, 2)


class MultiScaleLiquid(nn.Module):
    """Liquid processors at several scales, fused by a learned map: ``(B, C, H, W)`` to itself.

    The fusion is one linear map of the concatenated states, W [up(g), up(l), d] + b. It is
    computed as up(W_g g + up(W_l l)) + ..., which is the same, since linear maps of the channels
    and of the places commute, and much cheaper: the small grids are mapped before they grow.

    Args:
        channels: C.
        scales: in any order; those without a grid work at full size.
        solver: drives every cell, with the budget of its scale.
    """

    def __init__(self, channels: int, scales: Sequence[Scale], solver: Solver) -> None:
        super().__init__()
        ordered = sorted(scales, key=lambda scale: scale.grid or math.inf)
        self.processors = nn.ModuleList(
            LiquidProcessor(channels, scale, solver) for scale in ordered
        )
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        fused = self.bias.to(x.dtype)[None, :, None, None]
        for processor in self.processors:
            out = processor(x)
            fused = out + upsample(fused, *out.shape[-2:])
        return upsample(fused, *x.shape[-2:])


class LiquidBlock(nn.Module):
    """x + MultiScaleLiquid(local(norm(x))).

    Args:
        channels: width of the feature maps.
        conditioning: width of the conditioning vector.
        scales: of the liquid processing.
        solver: drives every cell, with the budget of its scale.
        neighbours: whether ``local`` is a depthwise 3x3 convolution, which lets the liquid cell
            of a pixel see the pixels around it, or nothing.
    """

    def __init__(
        self,
        channels: int,
        conditioning: int,
        scales: Sequence[Scale],
        solver: Solver,
        *,
        neighbours: bool,
    ) -> None:
        super().__init__()
        self.norm = ConditionedNorm(channels, conditioning)
        self.local: nn.Module = (
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
            if neighbours
            else nn.Identity()
        )
        self.liquid = MultiScaleLiquid(channels, scales, solver)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x + self.liquid(self.local(self.norm(x, condition)))


def three_scales(
    hidden: Sequence[int], steps: int | Sequence[int], grids: Sequence[int], pooling: Sequence[str]
) -> tuple[Scale, Scale, Scale]:
    """The global, local and detail scale.

    Raises:
        ValueError: where a list has the wrong length or a value is out of range.
    """
    steps = [steps] * 3 if isinstance(steps, int) else steps
    for name, values, length in (
        ("hidden", hidden, 3),
        ("steps", steps, 3),
        ("grids", grids, 2),
        ("pooling", pooling, 2),
    ):
        if isinstance(values, str) or len(values) != length:
            raise ValueError(f"{name} takes {length} values, not {values!r}")
    return (
        Scale(grids[0], hidden[0], steps[0], pooling[0]),
        Scale(grids[1], hidden[1], steps[1], pooling[1]),
        Scale(None, hidden[2], steps[2]),
    )


def budgets_by_scale(model: nn.Module) -> list[list[LiquidPart]]:
    """The processors of a model, those of one scale together, smallest grid first."""
    blocks = [block for block in model.modules() if isinstance(block, MultiScaleLiquid)]
    rows = zip(*(block.processors for block in blocks), strict=True)
    return [[part for part in row if isinstance(part, LiquidPart)] for row in rows]
