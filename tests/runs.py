"""Scripts of examples/ as modules, and small runs to call them on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image

from liquid_ode.training import TrainConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {"channels": 8, "hidden": [4, 4, 4], "inner": 8, "steps": [2, 2, 2]}


def load_script(name: str) -> ModuleType:
    """``examples/name.py``, which is in no package."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
    spec.loader.exec_module(module)
    return module


def draw_images(folder: Path, count: int) -> Path:
    """A folder of random images of 8 by 8 pixels."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{index:02d}.png")
    return folder


def small_config(images: Path, output: Path, **settings: Any) -> TrainConfig:
    """One epoch of a small ``improved`` on the CPU."""
    chosen = {"model_options": SMALL, "image_size": 8, "batch_size": 2, "epochs": 1, **settings}
    return TrainConfig(data=f"folder:{images}", output=str(output), device="cpu", **chosen)
