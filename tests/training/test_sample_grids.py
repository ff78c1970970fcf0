"""The sample grids of a run: drawn as its settings say."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from liquid_ode.data import ImageSet
from liquid_ode.diffusion import DDIM, TrailingGrid
from liquid_ode.evaluation import save_grid
from liquid_ode.training import Reporter, TrainConfig, load_run, train
from liquid_ode.training.build import build_schedule, ddim_grid


def test_a_grid_is_drawn_as_the_settings_say(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    data = ImageSet(pixels, torch.arange(12) % 3)
    monkeypatch.setattr("liquid_ode.training.run.load_images", lambda *_, **__: data)
    chosen = dataclasses.replace(
        config, class_conditional=True, epochs=1, max_steps=1, sample_steps=3, sample_eta=0.5,
        sample_sigma_max=20.0, sample_guidance=3.0,
    )  # fmt: skip
    run = train(chosen, reporter=Reporter())
    images = DDIM(TrailingGrid(3, sigma_max=20.0), eta=0.5).sample(
        load_run(run, device="cpu"), 4, class_labels=[0, 1, 2, 0], guidance_scale=3.0,
        image_shape=(3, 8, 8),
    )  # fmt: skip
    expected = save_grid(images, tmp_path / "expected.png")
    assert (run / "samples" / "epoch_0001.png").read_bytes() == expected.read_bytes()
    plain = DDIM(3).sample(load_run(run, device="cpu"), 4, image_shape=(3, 8, 8))
    assert save_grid(plain, tmp_path / "plain.png").read_bytes() != expected.read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_eta": 1.5}, "sample_eta must be at most 1"),
        ({"sample_guidance": 2.0}, "sample_guidance=2.0 needs a model with classes"),
        ({"sample_sigma_max": 0.0}, "sample_sigma_max must be greater than 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "steps", "sigma_max"),
    [
        ({"prediction": "epsilon"}, 50, 40.0),
        ({"prediction": "v"}, 50, math.inf),
        ({"prediction": "epsilon", "sample_sigma_max": 1e6}, 50, 1e6),
        ({"prediction": "v", "sample_sigma_max": 15.0}, 50, 15.0),
        ({"prediction": "epsilon"}, 1000, math.inf),  # more than there are up to 40
    ],
)
def test_where_ddim_starts(settings: dict[str, Any], steps: int, sigma_max: float) -> None:
    config = TrainConfig(**settings)
    grid = ddim_grid(config, steps)
    assert grid == TrailingGrid(steps, sigma_max=sigma_max)
    assert len(grid.levels(build_schedule(config))) == steps


def test_too_low_a_start_is_refused_before_a_directory_is_made(config: TrainConfig) -> None:
    low = dataclasses.replace(config, sample_sigma_max=1e-3)
    with pytest.raises(ValueError, match="sigma_max must be at least"):
        train(low, reporter=Reporter())
    assert not Path(str(config.output)).exists()
