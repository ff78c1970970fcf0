"""Runs back from their directories."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from liquid_ode.training import (
    CheckpointError,
    Reporter,
    TrainConfig,
    load_config,
    load_run,
    train,
)
from solvers import Midpoint
from tests.training.tiny import SMALL, to


def test_a_run_comes_back_as_its_model(config: TrainConfig) -> None:
    run = train(dataclasses.replace(config, samples=0), reporter=Reporter())
    diffusion = load_run(run, device="cpu")
    assert not diffusion.training
    assert load_config(run).model_options == SMALL
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    averaged, last = diffusion.model(x, t), load_run(run, weights="model").cpu().model(x, t)
    assert not torch.equal(averaged, last)
    by_name = load_run(run, solver="midpoint", device="cpu").model(x, t)
    by_value = load_run(run, solver=Midpoint(), device="cpu").model(x, t)
    more = load_run(run, solver_steps=2, device="cpu").model(x, t)
    assert torch.equal(by_name, by_value)
    assert not torch.equal(averaged, by_name)
    assert not torch.equal(averaged, more)
    with pytest.raises(ValueError, match="has no best weights"):
        load_run(run, weights="best")
    with pytest.raises(ValueError, match=r"weights must be .* got 'mean'"):
        load_run(run, weights="mean")
    with pytest.raises(ValueError, match="unknown solver"):
        load_run(run, solver="magic")


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run directory.*config\.json"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"format_version": 1}')
    with pytest.raises(CheckpointError, match="broken or not a run's record"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"format_version": 9, "config": {}}')
    with pytest.raises(CheckpointError, match="format version 9; this library reads 1"):
        train(resume=tmp_path)
    (tmp_path / "config.json").write_text('{"format_version": 1, "config": {"colour": 1}}')
    with pytest.raises(CheckpointError, match="unknown training settings: 'colour'"):
        load_run(tmp_path)


def test_a_checkpoint_or_weights_of_another_run_are_refused(
    config: TrainConfig, tmp_path: Path
) -> None:
    first = train(to(config, tmp_path / "a", prediction="v", max_steps=2), reporter=Reporter())
    second = train(to(config, tmp_path / "b", max_steps=3), reporter=Reporter())
    for name in ("checkpoint.safetensors", "ema.safetensors"):
        (second / name).write_bytes((first / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"prediction \(expected 'epsilon', found 'v'\)"):
        train(resume=second, reporter=Reporter())
    with pytest.raises(CheckpointError, match=r"prediction \(expected 'epsilon', found 'v'\)"):
        load_run(second)
    third = train(to(config, tmp_path / "c", max_steps=2, lr=0.1), reporter=Reporter())
    (third / "checkpoint.safetensors").write_bytes(
        train(to(config, tmp_path / "d", max_steps=2), reporter=Reporter())
        .joinpath("checkpoint.safetensors")
        .read_bytes()
    )
    with pytest.raises(CheckpointError, match=r"made with lr 0.0002 in place of 0.1"):
        train(resume=third, reporter=Reporter())
