"""Runs that are measured while they are trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from liquid_ode.diffusion import DDIM, TrailingGrid
from liquid_ode.evaluation import ImageFeatures, Yardstick
from liquid_ode.training import (
    CheckpointError,
    EpochEvaluation,
    Interrupted,
    Moment,
    Reporter,
    TrainConfig,
    load_run,
    train,
)
from tests.runs import draw_images
from tests.training.tiny import SMALL, Stopper, lines, timeless, to, weights

N = 12


class MeanColours(ImageFeatures):
    title = "FD-colour"
    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.unit = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.unit * images.float().mean((2, 3))


def pixels(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=generator).to(torch.uint8)


def yardstick() -> Yardstick:
    return Yardstick(pixels(40, 1), pixels(30, 2), features=MeanColours())


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=f"folder:{draw_images(tmp_path / 'images', 8)}", image_size=8, model_options=SMALL,
        batch_size=4, epochs=4, samples=0, sample_steps=2, lr=0.01, device="cpu", threads=1,
        output=str(tmp_path / "run"),
    )  # fmt: skip


class Averages(Reporter):
    """Keeps the averaged weights after each epoch, as they are on the disk."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}

    def epoch(self, moment: Moment) -> None:
        self.kept[moment.epoch] = (moment.run_dir / "ema.safetensors").read_bytes()


def test_the_best_average_is_kept_and_every_measurement_told(config: TrainConfig) -> None:
    notes: list[str] = []
    averages = Averages()
    evaluation = EpochEvaluation(yardstick, every=1, n=N, note=notes.append)
    run = train(config, reporter=Reporter(), callbacks=[averages, evaluation])
    measured = {line["epoch"]: line for line in lines(run) if "fd_cnn" in line}
    assert list(measured) == [1, 2, 3, 4]
    assert [line["step"] for line in measured.values()] == [2, 4, 6, 8]
    best = min(measured, key=lambda epoch: measured[epoch]["fd_cnn"])
    assert (run / "ema-best.safetensors").read_bytes() == averages.kept[best]
    assert sum("best so far" in note for note in notes) >= 1
    assert len(notes) == 4

    # By hand, from the file: the same images, and so the same distance.
    diffusion = load_run(run, weights="best", device="cpu")
    sampler = DDIM(TrailingGrid(2, sigma_max=40.0))  # the usual one of a model of the noise
    images = sampler.sample(diffusion, N, seeds=0, image_shape=(3, 8, 8))
    scores = yardstick().measure(images)
    line = measured[best]
    assert line["fd_cnn"] == pytest.approx(scores.images.fd, rel=1e-4)
    assert line["kid"] == pytest.approx(scores.images.kid, rel=1e-4)
    assert line["evaluated"] == N
    assert scores.real is not None
    assert line["fd_cnn_real"] == pytest.approx(scores.real.fd)


def test_measuring_changes_no_weight_and_comes_when_it_is_due(
    config: TrainConfig, tmp_path: Path
) -> None:
    plain = train(config, reporter=Reporter())
    other = to(config, tmp_path / "measured", epochs=4)
    evaluation = EpochEvaluation(yardstick, every=3, n=N)
    measured = train(other, reporter=Reporter(), callbacks=[evaluation])
    assert weights(measured) == weights(plain)
    assert [line["epoch"] for line in lines(measured) if "fd_cnn" in line] == [3, 4]
    assert [line for line in timeless(measured) if "fd_cnn" not in line] == timeless(plain)
    assert not (plain / "ema-best.safetensors").exists()
    with pytest.raises(CheckpointError, match="has no best weights: nothing was"):
        load_run(plain, weights="best")
    begun = to(
        config, tmp_path / "begun", init_from=str(measured), init_weights="best", max_steps=1
    )
    assert "weights best of" in (train(begun, reporter=Reporter()) / "config.json").read_text()


def test_a_resumed_run_goes_on_with_its_best(config: TrainConfig, tmp_path: Path) -> None:
    whole = train(config, reporter=Reporter(), callbacks=[EpochEvaluation(yardstick, n=N)])
    again = to(config, tmp_path / "again")
    with pytest.raises(Interrupted):
        train(again, reporter=Stopper(5), callbacks=[EpochEvaluation(yardstick, n=N)])
    run = train(
        resume=again.output, reporter=Reporter(), callbacks=[EpochEvaluation(yardstick, n=N)]
    )
    assert timeless(run) == timeless(whole)
    assert (run / "ema-best.safetensors").read_bytes() == (
        whole / "ema-best.safetensors"
    ).read_bytes()


def test_a_progressive_run_is_measured_once_its_images_are_whole(config: TrainConfig) -> None:
    grows = dataclasses.replace(
        config, model="unet", model_options={"widths": [8, 8]}, progressive=1,
        progressive_share=0.5,
    )  # fmt: skip
    run = train(grows, reporter=Reporter(), callbacks=[EpochEvaluation(yardstick, n=N)])
    assert [line["epoch"] for line in lines(run) if "fd_cnn" in line] == [3, 4]


def test_settings_that_cannot_be_measured_are_refused(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="evaluate_every needs held-out images"):
        TrainConfig(data="folder:x", evaluate_every=1)
    with pytest.raises(ValueError, match="evaluate_samples must be at least 193"):
        TrainConfig(evaluate_samples=192)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        EpochEvaluation(yardstick, every=0)
    run = train(config, reporter=Reporter())
    with pytest.raises(Exception, match="has no best weights"):
        load_run(run, weights="best")
