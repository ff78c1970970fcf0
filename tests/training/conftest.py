"""A folder of small images, and the settings of a run on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from liquid_ode.training import TrainConfig
from tests.training.tiny import SMALL


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 26 images."""
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for index in range(26):
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{index:02d}.png")
    return folder


@pytest.fixture
def config(images: Path, tmp_path: Path) -> TrainConfig:
    """Two epochs of six steps."""
    return TrainConfig(
        model_options=SMALL, data=f"folder:{images}", image_size=8, epochs=2, batch_size=4,
        samples=4, sample_steps=2, log_every=2, threads=1, device="cpu",
        output=str(tmp_path / "run"),
    )  # fmt: skip
