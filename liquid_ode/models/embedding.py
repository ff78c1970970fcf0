"""What a denoiser is conditioned on: the time step and, optionally, a class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, size: int, *, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of t at geometrically spaced frequencies, float32 ``(B, size)``.

    Args:
        t: time steps ``(B,)``, whole or fractional.
        size: even number of features.

    Reference: Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B.
    """
    half = size // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * exponents)  # (B, half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Conditioning(nn.Module):
    """The embedding of a time step by a 4-layer MLP, plus that of a class where there are any.

    Args:
        size: features of the sinusoidal embedding.
        width: features of the MLP's layers and of the result.
        num_classes: number of classes; None for an unconditional model. Index ``num_classes``
            stands for "no class", as classifier-free guidance needs it.
    """

    def __init__(self, size: int, width: int, num_classes: int | None) -> None:
        super().__init__()
        self.size = size
        self.num_classes = num_classes
        self.mlp = nn.Sequential(
            nn.Linear(size, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
        )
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, width)

    def forward(self, t: Tensor, class_labels: Tensor | None) -> Tensor:
        """The conditioning vector ``(B, width)``."""
        weight = next(self.mlp.parameters())
        embedded = self.mlp(sinusoidal_embedding(t, self.size).to(weight.dtype))
        if self.classes is None:
            return embedded
        if class_labels is None:
            class_labels = torch.full_like(t, self.classes.num_embeddings - 1, dtype=torch.long)
        return embedded + self.classes(class_labels)
