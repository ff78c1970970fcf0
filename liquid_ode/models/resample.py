"""Average pooling and bilinear upsampling as products with fixed matrices.

They give what ``F.adaptive_avg_pool2d`` and ``F.interpolate(mode="bilinear")`` give, but their
gradients are deterministic on CUDA, where those of PyTorch are not, and run in the precision of
the map.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def average_pool(x: Tensor, grid: int) -> Tensor:
    """Means over a grid of windows: ``(B, C, H, W)`` to ``(B, C, grid, grid)``."""
    rows, columns = (
        _averages(size, grid, x.dtype, x.device) for size in (x.shape[-2], x.shape[-1])
    )
    return _apply(x, rows, columns)


def upsample(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear interpolation: ``(B, C, h, w)`` to ``(B, C, height, width)``."""
    if x.shape[-2:] in {(height, width), (1, 1)}:
        return x  # nothing to interpolate; a single value broadcasts
    rows = _bilinear(x.shape[-2], height, x.dtype, x.device)
    columns = _bilinear(x.shape[-1], width, x.dtype, x.device)
    return _apply(x, rows, columns)


def _apply(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows x columns^T in every channel; both products are contiguous in channels-last memory."""
    batch, channels, height, width = x.shape
    nhwc = x.permute(0, 2, 3, 1)  # (B, H, W, C)
    tall = rows @ nhwc.reshape(batch, height, width * channels)  # (B, H', W C)
    wide = columns @ tall.view(batch, len(rows), width, channels)  # (B, H', W', C)
    return wide.permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=64)
def _averages(size: int, grid: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(grid, size)``: row i averages from floor(i size/grid) to ceil((i + 1) size/grid)."""
    with torch.inference_mode(False):
        matrix = torch.zeros(grid, size)
        for index in range(grid):
            start, stop = index * size // grid, -(-(index + 1) * size // grid)
            matrix[index, start:stop] = 1 / (stop - start)
        return matrix.to(device, dtype)


@functools.lru_cache(maxsize=64)
def _bilinear(size: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(new, size)``: linear interpolation at the centres of the new cells."""
    with torch.inference_mode(False):
        centres = ((torch.arange(new) + 0.5) * size / new - 0.5).clamp(0, size - 1)
        places = torch.arange(size)
        return (1 - (centres[:, None] - places).abs()).clamp(min=0).to(device, dtype)
