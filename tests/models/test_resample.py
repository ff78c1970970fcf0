"""Resampling by matrices against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from liquid_ode.models.resample import average_pool, upsample


@pytest.mark.parametrize("size", [(32, 32), (16, 24), (17, 31), (3, 5)])
@pytest.mark.parametrize("grid", [1, 4, 8])
def test_average_pool(size: tuple[int, int], grid: int) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(
        average_pool(x, grid), F.adaptive_avg_pool2d(x, grid), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (2, 5)])
@pytest.mark.parametrize("new", [(8, 8), (32, 32), (17, 31), (4, 4)])
def test_upsample(size: tuple[int, int], new: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = F.interpolate(x, size=new, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(x, *new), expected, rtol=1e-6, atol=1e-6)


def test_channels_last_stays_channels_last() -> None:
    x = torch.randn(2, 8, 16, 16).to(memory_format=torch.channels_last)
    for out in (average_pool(x, 4), upsample(x, 32, 32)):
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_matrices_made_in_inference_mode_serve_training_later() -> None:
    with torch.inference_mode():
        upsample(torch.randn(1, 2, 7, 7), 13, 13)
    x = torch.randn(1, 2, 7, 7, requires_grad=True)
    upsample(x, 13, 13).sum().backward()
    assert x.grad is not None
