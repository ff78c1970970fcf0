"""Progressive training: the plan of sizes, and runs that follow it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from liquid_ode.training import Interrupted, Moment, Reporter, TrainConfig, load_run, train
from liquid_ode.training.growth import Growth, growth_at
from tests.runs import draw_images, load_script, small_config


def test_sizes_take_their_shares_and_new_stages_fade_in() -> None:
    plan = [growth_at(step, 100, halvings=2, share=0.2) for step in range(100)]
    assert [growth.level for growth in plan] == [2] * 20 + [1] * 20 + [0] * 60
    assert plan[:20] == [Growth(2, 1.0)] * 20
    fades = [growth.fade for growth in plan]
    assert fades[20:30] == [(k + 1) / 10 for k in range(10)]
    assert fades[30:40] == [1.0] * 10
    assert fades[40:50] == [(k + 1) / 10 for k in range(10)]
    assert set(fades[50:]) == {1.0}


def test_without_halvings_nothing_grows() -> None:
    assert growth_at(0, 10, halvings=0, share=0.2) == Growth(0, 1.0)


def test_few_steps_still_visit_every_size() -> None:
    plan = [growth_at(step, 5, halvings=2, share=0.2) for step in range(5)]
    assert [growth.level for growth in plan] == [2, 1, 0, 0, 0]
    assert all(0 < growth.fade <= 1 for growth in plan)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images"), 20)


def settings(images: Path, output: Path, **changes: Any) -> TrainConfig:
    options = {
        "model": "unet", "model_options": {"widths": [8, 8]}, "progressive": 1,
        "progressive_share": 0.5, "lr": 0.01, "samples": 0, "checkpoint_every": 3,
    }  # fmt: skip
    return small_config(images, output, **{**options, **changes})


class Sizes(Reporter):
    """Notes the growth of the model after each step, and of its average."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[tuple[list[float], list[float]]] = []
        self.stop_after = stop_after

    def step(self, moment: Moment) -> None:
        models = moment.diffusion.model, moment.averaged.model
        growths = [model.growth.tolist() for model in models]  # type: ignore[operator,union-attr]
        self.seen.append((growths[0], growths[1]))
        if moment.step == self.stop_after:
            signal.raise_signal(signal.SIGTERM)


def test_a_run_grows_and_so_does_its_average(images: Path, tmp_path: Path) -> None:
    sizes = Sizes()
    run = train(settings(images, tmp_path / "run", samples=4, sample_steps=2), reporter=sizes)
    fade = torch.tensor([0.4, 0.8]).tolist()
    expected = [[1.0, 1.0]] * 5 + [[0.0, fade[0]], [0.0, fade[1]]] + [[0.0, 1.0]] * 3
    assert sizes.seen == [(growth, growth) for growth in expected]
    assert (run / "samples" / "epoch_0001.png").exists()


def test_a_run_stopped_while_it_grows_goes_on_to_the_same_weights(
    images: Path, tmp_path: Path
) -> None:
    whole = train(settings(images, tmp_path / "whole"), reporter=Reporter())
    for stop_after in (2, 6):
        run = tmp_path / f"stopped{stop_after}"
        with pytest.raises(Interrupted):
            train(settings(images, run), reporter=Sizes(stop_after))
        half = load_run(run, device="cpu")
        assert half.model.reduction == (2 if stop_after == 2 else 1)
        train(resume=run, reporter=Reporter())
        assert (run / "ema.safetensors").read_bytes() == (whole / "ema.safetensors").read_bytes()


def test_sampling_a_run_that_still_grows_gives_small_images(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(settings(images, run), reporter=Sizes(2))
    few = ["-n", "2", "--steps", "2", "--device", "cpu", "--separate", str(tmp_path / "drawn")]
    assert load_script("sample").main([str(run), *few]) == 0
    with Image.open(tmp_path / "drawn" / "seed_000000.png") as image:
        assert image.size == (4, 4)


def test_what_cannot_grow(images: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"model": "improved", "model_options": {}}, "needs a model that grows"),
        ({"progressive": 2}, "must be less than 1"),
        ({"compile": True}, "exclude each other"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(images, tmp_path / "run", **changes)
    with pytest.raises(ValueError, match="2 levels works on images halved 0 to 1 times, not 2"):
        train(settings(images, tmp_path / "run", progressive=2, progressive_share=0.2))
    assert not (tmp_path / "run").exists()
