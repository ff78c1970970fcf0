"""Scripts of examples/ as modules, small runs to call them on, and what is asked of all."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from liquid_ode.training import TrainConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {"channels": 8, "hidden": [4, 4, 4], "inner": 8, "steps": [2, 2, 2]}


def load_script(name: str) -> ModuleType:
    """``examples/name.py``, which is in no package, and may import what lies beside it."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        spec.loader.exec_module(module)
    return module


def on_one_thread() -> Iterator[None]:
    """For a fixture: work this small is slowed down by more threads, the more so where other
    programs run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check_refusal(status: int, err: str, message: str) -> None:
    """A script that was called wrongly: status 2, and one line that tells why."""
    assert status == 2, err
    assert err.startswith("error: "), err
    assert message in err, f"{message!r} is not in {err!r}"
    assert err.count("\n") == 1, err


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
