"""Whole runs, tiny ones: what they leave, and that other settings run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from liquid_ode.data import ImageSet
from liquid_ode.diffusion import GaussianDiffusion
from liquid_ode.training import (
    Reporter,
    TrainConfig,
    load_run,
    train,
)
from tests.training.tiny import lines, timeless, to, weights


def test_a_run_leaves_its_record(config: TrainConfig) -> None:
    random = torch.get_rng_state()
    run = train(config, reporter=Reporter())
    assert torch.equal(torch.get_rng_state(), random)
    assert not torch.are_deterministic_algorithms_enabled()
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint.safetensors", "config.json", "ema.safetensors", "loss.png", "metrics.jsonl",
        "model.safetensors", "samples",
    ]  # fmt: skip
    assert [p.name for p in sorted((run / "samples").iterdir())] == [
        "epoch_0001.png",
        "epoch_0002.png",
    ]
    record = json.loads((run / "config.json").read_text())
    assert record["config"]["precision"] == "no"
    assert record["data"]["images"] == 26
    assert set(record["versions"]) == {"liquid_ode", "python", "torch", "accelerate"}
    found = lines(run)
    assert [line["step"] for line in found] == [2, 4, 6, 8, 10, 12]
    assert [line["epoch"] for line in found] == [1, 1, 1, 2, 2, 2]
    assert set(found[0]) == {
        "step", "epoch", "loss", "lr", "grad_norm", "images_per_second", "seconds",
    }  # fmt: skip
    assert 0 < found[-1]["lr"] < 0.1 * config.lr < found[0]["lr"] < config.lr
    with Image.open(run / "loss.png") as plot, Image.open(run / "samples/epoch_0002.png") as grid:
        plot.load()
        assert grid.size == (4 * 18 + 2, 18 + 2)


def test_train_leaves_the_allocator_of_its_caller_alone(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("mallopt is a setting of the whole process")

    monkeypatch.setattr("ctypes.CDLL", fail)
    train(dataclasses.replace(config, max_steps=1, samples=0), reporter=Reporter())


def test_training_lowers_the_loss(config: TrainConfig) -> None:
    run = train(dataclasses.replace(config, epochs=15, lr=5e-3, samples=0), reporter=Reporter())
    losses = [line["loss"] for line in lines(run)]
    assert sum(losses[-9:]) < 0.8 * sum(losses[:9])
    assert not (run / "samples").exists()


def test_a_directory_with_a_run_is_refused(config: TrainConfig) -> None:
    run = train(dataclasses.replace(config, max_steps=1, samples=0), reporter=Reporter())
    before = weights(run)
    with pytest.raises(
        ValueError, match=r"already holds a run: continue it with --resume .*output"
    ):
        train(config, reporter=Reporter())
    assert weights(run) == before


def test_a_start_that_fails_leaves_no_run(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="26 images, fewer than the 64"):
        train(to(config, tmp_path / "new", batch_size=64), reporter=Reporter())
    with pytest.raises(ValueError, match="model 'improved' takes no option 'width'"):
        train(to(config, tmp_path / "new", model_options={"width": 8}), reporter=Reporter())
    assert not (tmp_path / "new").exists()


# Variants -------------------------------------------------------------------------------------


def test_accumulated_passes_are_one_larger_batch(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_noise(self: GaussianDiffusion, x0: torch.Tensor, *_: Any) -> torch.Tensor:
        t = torch.zeros(len(x0), dtype=torch.long)
        return (self.model(x0, t) - x0).square().mean()

    monkeypatch.setattr(GaussianDiffusion, "forward", without_noise)
    config = dataclasses.replace(config, precision="no", samples=0, batch_size=8)
    one = train(config, reporter=Reporter())
    two = train(
        to(config, tmp_path / "two", batch_size=4, gradient_accumulation=2), reporter=Reporter()
    )
    assert lines(one)[-1]["step"] == lines(two)[-1]["step"] == 6
    for a, b in zip(timeless(one), timeless(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "no", "channels_last": False, "flip": True, "weighting": "min-snr-batch"},
        {"precision": "bf16", "gradient_clip": None, "prediction": "v", "solver": "midpoint"},
        {"deterministic": False, "schedule": "linear", "diffusion_steps": 40, "limit": 10},
    ],
)
def test_the_other_settings_run(config: TrainConfig, changes: dict[str, Any]) -> None:
    run = train(dataclasses.replace(config, max_steps=2, **changes), reporter=Reporter())
    assert all(line["loss"] > 0 for line in lines(run))


def test_a_class_conditional_run(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:

    pixels = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    data = ImageSet(pixels, torch.arange(12) % 3)
    monkeypatch.setattr("liquid_ode.training.run.load_images", lambda *_, **__: data)
    run = train(dataclasses.replace(config, class_conditional=True, epochs=1), reporter=Reporter())
    assert load_run(run, device="cpu").num_classes == 3
