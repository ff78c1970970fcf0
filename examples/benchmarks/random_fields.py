"""Random liquid fields to measure solvers on."""

from __future__ import annotations

import torch
from torch import Tensor

from liquid_ode.cells import LiquidField


def stiff_liquid_field(
    seed: int, batch: int, hidden: int, dtype: torch.dtype = torch.float64
) -> LiquidField:
    """Orthogonal W_rec of gain 0.8, tau log-uniform in [0.1, 5], normal inputs."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    recurrent = 0.8 * torch.linalg.qr(normal(hidden, hidden)).Q
    share = torch.rand(batch, hidden, generator=generator, dtype=torch.float64)
    tensors = (recurrent, normal(batch, hidden), (0.1 * 50**share).reciprocal())
    return LiquidField(*(value.to(dtype) for value in tensors))
