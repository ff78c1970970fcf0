"""Images that tests make, and files of them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def save(image: torch.Tensor, path: Path) -> torch.Tensor:
    """Write (3, H, W) as a file and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(path)
    return image
