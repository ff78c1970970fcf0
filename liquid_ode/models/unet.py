"""A plain U-Net of the same size, for an honest comparison; and the shape that U-Nets have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.models.attention import SelfAttention
from liquid_ode.models.blocks import ResidualBlock, check_width, numbers, zeroed
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
            resolution; a number alone for one.
        progressive: whether the model can :meth:`grow`: each level then has a stem and a head.

    The others are those of :class:`Denoiser`.
    """

    growth: Tensor | None

    def __init__(
        self,
        make_block: MakeBlock,
        *,
        widths: Sequence[int],
        blocks: int,
        attention: int | Sequence[int],
        progressive: bool,
        **options: Any,
    ) -> None:
        if not widths or any(width % 8 for width in widths):
            raise ValueError(f"widths must be multiples of 8 (GroupNorm(8)), not {widths!r}")
        check_width("blocks", blocks)
        attending = numbers(attention)
        if any(level not in range(len(widths)) for level in attending):
            raise ValueError(
                f"attention must name levels from 0 to {len(widths) - 1}, not {list(attending)}"
            )
        super().__init__(channels=widths[0], **options)

        def stage(ins: int, outs: int, level: int) -> nn.Module:
            made = [make_block(outs if index else ins, outs, level) for index in range(blocks)]
            if blocks == 1 and level not in attending:
                return made[0]
            return Stage(made, outs, attention=level in attending)

        levels = range(len(widths))
        ins = [widths[0], *widths[:-1]]
        self.down = nn.ModuleList(stage(ins[level], widths[level], level) for level in levels)
        self.middle = stage(widths[-1], widths[-1], levels[-1])
        self.up = nn.ModuleList(
            stage(2 * widths[level], ins[level], level) for level in reversed(levels)
        )

        self.register_buffer("growth", torch.tensor([0.0, 1.0]) if progressive else None)
        if progressive:
            self.stems = nn.ModuleList(
                nn.Conv2d(self.image_channels, width, 3, padding=1) for width in ins[1:]
            )
            self.heads = nn.ModuleList(_Head(width, self.image_channels) for width in ins[1:])

    def grow(self, level: int, fade: float = 1.0) -> None:
        """Work on images of 1/2^level of the full size from now on, without the stages above.

        The outermost stage in use counts by ``fade``, what was there before it by 1 - fade: its
        input to the stage below is blended with that stage's own stem, and its output with that
        stage's own head, as images. The state is a buffer, so that it is saved with the weights.

        Reference: Karras et al. 2018, Progressive growing of GANs, section 2 and figure 2.

        Args:
            level: 0 is full size.
            fade: in [0, 1]; 1 for the smallest size.

        Raises:
            ValueError: where the model was not made to grow, or a number is out of range.
        """
        if self.growth is None:
            raise ValueError("a model grows where it was created with progressive=True")
        last = len(self.down) - 1
        if level not in range(last + 1):
            raise ValueError(
                f"a U-Net of {last + 1} levels works on images halved 0 to {last} times, not "
                f"{level!r} times"
            )
        if not 0 <= fade <= 1 or (level == last and fade != 1):
            raise ValueError(
                f"fade must lie in [0, 1], and be 1 at the smallest size, not {fade!r} at {level}"
            )
        self.growth.copy_(torch.tensor([float(level), fade]))

    @property
    def reduction(self) -> int:
        return 1 if self.growth is None else 2 ** int(self.growth[0])

    def process(self, x: Tensor, condition: Any) -> Tensor:
        level, fade = (0.0, 1.0) if self.growth is None else self.growth.tolist()
        return self._grown(x, condition, int(level), fade)

    def _grown(self, x: Tensor, condition: Any, level: int, fade: float) -> Tensor:
        smallest = 2 ** (len(self.down) - 1 - level)
        if min(x.shape[-2:]) < smallest:
            raise ValueError(
                f"a U-Net of {len(self.down) - level} levels needs images of at least {smallest} "
                f"pixels a side, not {x.shape[-2]}x{x.shape[-1]}"
            )
        blend = None if fade == 1 else (self._enter(F.avg_pool2d(x, 2), level + 1), fade)
        h, below = self._through(level, self._enter(x, level), condition, blend)
        out = self._leave(h, level)
        if blend is None:
            return out
        before = F.interpolate(self._leave(below, level + 1), size=x.shape[-2:], mode="nearest")
        return torch.lerp(before, out, fade)

    def _through(
        self, level: int, h: Tensor, condition: Any, blend: tuple[Tensor, float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Down and up again from a level: its features, and those of the level below."""
        skip = below = self.down[level](h, condition)
        if level == len(self.down) - 1:
            h = self.middle(skip, condition)
        else:
            h = F.avg_pool2d(skip, 2)
            if blend is not None:
                own, fade = blend
                h = torch.lerp(own, h, fade)
            below, _ = self._through(level + 1, h, condition)
            h = F.interpolate(below, size=skip.shape[-2:], mode="nearest")
        return self.up[-1 - level](torch.cat([h, skip], dim=1), condition), below

    def _enter(self, x: Tensor, level: int) -> Tensor:
        stem = self.stems[level - 1] if level else self.stem
        h: Tensor = stem(x)
        return h

    def _leave(self, h: Tensor, level: int) -> Tensor:
        out: Tensor = self.heads[level - 1](h) if level else self.head(F.silu(self.norm_out(h)))
        return out


class _Head(nn.Sequential):
    """From features to an image, as :class:`Denoiser` does it; starts at zero."""

    def __init__(self, channels: int, image_channels: int) -> None:
        out = zeroed(nn.Conv2d(channels, image_channels, 3, padding=1))
        super().__init__(nn.GroupNorm(8, channels), nn.SiLU(), out)


class UNet(UShape):
    """Residual blocks on the way down and up, with skip connections.

    Reference: Ronneberger et al. 2015; Ho et al. 2020, appendix B.

    Args:
        solver: not used; taken so that every model is created alike.
        num_classes: number of classes; None for an unconditional model.
        widths: channels at full, half, quarter, ... resolution.
        blocks: at each resolution, on the way down and on the way up.
        attention: levels whose blocks are followed by self-attention, counted from 0, full
            resolution; a number alone for one.
        progressive: whether the model can :meth:`grow` from small images to large ones.
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
        attention: int | Sequence[int] = (),
        progressive: bool = False,
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
            progressive=progressive,
            conditioning=conditioning,
            num_classes=num_classes,
            image_channels=image_channels,
        )
