"""The exponential moving average of a model's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def warmed_up_decay(decay: float, updates: int) -> float:
    """min(decay, (1 + n) / (10 + n)) after n updates: early on the average forgets faster."""
    return min(decay, (1 + updates) / (10 + updates))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of ``model``'s weights: ema <- d * ema + (1 - d) * weights, d warmed up.

    The first update copies the weights.
    """

    @torch.no_grad()
    def update(averages: Any, weights: Any, updates: Tensor | int) -> None:
        torch._foreach_lerp_(averages, weights, 1 - warmed_up_decay(decay, int(updates)))

    ema = AveragedModel(model, multi_avg_fn=update)
    ema.requires_grad_(False)
    return ema.eval()
