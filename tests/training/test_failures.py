"""What goes wrong in a run costs nothing that was saved."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from liquid_ode.diffusion import GaussianDiffusion
from liquid_ode.training import (
    Interrupted,
    Reporter,
    TrainConfig,
    TrainingError,
    train,
)
from tests.training.tiny import Stopper, to, weights


def test_a_loss_that_is_not_finite_stops_the_run_before_the_step(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = train(dataclasses.replace(config, checkpoint_every=4), reporter=Stopper(-1))
    loss, calls = GaussianDiffusion.forward, iter(range(100))

    def spoiled(self: GaussianDiffusion, *inputs: Any) -> torch.Tensor:
        return loss(self, *inputs) * (float("nan") if next(calls) == 4 else 1.0)

    monkeypatch.setattr(GaussianDiffusion, "forward", spoiled)
    with pytest.raises(TrainingError, match=r"loss became nan in step 5 of 12.*state, of step 4"):
        train(to(config, tmp_path / "bad", checkpoint_every=4), reporter=Reporter())
    monkeypatch.undo()
    assert weights(train(resume=tmp_path / "bad", reporter=Reporter())) == weights(good)


def test_data_that_the_loss_refuses_is_reported_with_its_step(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_finite(images: torch.Tensor) -> torch.Tensor:
        return images.float() * float("nan")

    monkeypatch.setattr("liquid_ode.training.batches.to_model_range", not_finite)
    with pytest.raises(TrainingError, match=r"step 1 of 12 failed: x0 must be finite.*No state"):
        train(config, reporter=Reporter())


def test_a_full_disk_keeps_the_previous_checkpoint(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, reporter=Reporter())
    cut = to(config, tmp_path / "cut", checkpoint_every=2)
    real, calls = os.fsync, iter(range(100))

    def full(handle: int) -> None:
        if next(calls) > 9:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"could not save .*safetensors: No space left.*kept"):
        train(cut, reporter=Reporter())
    monkeypatch.undo()
    assert not list((tmp_path / "cut").glob(".*.tmp"))
    assert weights(train(resume=tmp_path / "cut", reporter=Reporter())) == weights(whole)


def test_a_sampler_that_fails_does_not_end_the_training(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("the sampled images hold NaN")

    monkeypatch.setattr("liquid_ode.diffusion.DDIM.sample", fail)
    listener = Stopper(-1)
    train(config, reporter=listener)
    assert "no sample grid of epoch 1: the sampled images hold NaN" in listener.notes


def test_a_stop_while_sampling_loses_nothing(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, reporter=Reporter())
    real = GaussianDiffusion.denoise_unchecked

    def stopped(self: GaussianDiffusion, *inputs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.undo()
        return real(self, *inputs)

    monkeypatch.setattr(GaussianDiffusion, "denoise_unchecked", stopped)
    with pytest.raises(Interrupted):
        train(to(config, tmp_path / "cut"), reporter=Reporter())
    assert not (tmp_path / "cut" / "samples").exists()
    run = train(resume=tmp_path / "cut", reporter=Reporter())
    grid = Path("samples") / "epoch_0001.png"
    assert (run / grid).read_bytes() == (whole / grid).read_bytes()
    assert weights(run) == weights(whole)
