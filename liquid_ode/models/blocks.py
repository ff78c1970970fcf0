"""Building blocks that the image models share. Feature maps are ``(B, C, H, W)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def numbers(value: int | Sequence[int]) -> tuple[int, ...]:
    """The numbers of an option that takes several, or one alone: ``attention=2`` is ``(2,)``."""
    return (value,) if isinstance(value, int) else tuple(value)


def check_width(name: str, value: object, *, multiple: int = 1) -> int:
    """Return a valid width.

    Raises:
        ValueError: where it is no positive whole number, or no multiple of the one asked for.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or value % multiple:
        kind = "a whole number of at least 1" if multiple == 1 else f"a multiple of {multiple}"
        raise ValueError(f"{name} must be {kind}, not {value!r}")
    return value


Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def zeroed(layer: Layer) -> Layer:
    """The layer with weights and bias of zero: what it ends adds nothing until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ConditionedNorm(nn.Module):
    """GroupNorm, then a scale and shift out of the conditioning vector (FiLM).

    y = shift(c) + (1 + scale(c)) GroupNorm(x). Starts as the plain GroupNorm.

    Reference: Perez et al. 2018, eq. 2; Dhariwal & Nichol 2021, section 3 (AdaGN).
    """

    def __init__(self, channels: int, conditioning: int, *, groups: int = 8) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.film = zeroed(nn.Linear(conditioning, 2 * channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.norm(x)
        scale, shift = self.film(F.silu(condition))[..., None, None].to(x.dtype).chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), 3x3 convolutions through ``inner`` channels."""

    def __init__(
        self, channels: int, conditioning: int, *, inner: int, out_channels: int | None = None
    ) -> None:
        super().__init__()
        check_width("inner", inner, multiple=8)  # GroupNorm(8)
        out_channels = out_channels or channels
        self.norm1 = ConditionedNorm(channels, conditioning)
        self.conv1 = nn.Conv2d(channels, inner, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, inner)
        self.conv2 = zeroed(nn.Conv2d(inner, out_channels, 3, padding=1))
        self.skip: nn.Module = (
            nn.Identity() if out_channels == channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x, condition)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(inner)))
