"""A run is its settings and its images: it goes on from anywhere, and with more epochs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from liquid_ode.data import DataError
from liquid_ode.diffusion import GaussianDiffusion
from liquid_ode.training import (
    CheckpointError,
    Interrupted,
    Reporter,
    TrainConfig,
    TrainingError,
    train,
)
from liquid_ode.training.cli import main
from liquid_ode.training.rates import learning_rate
from tests.training.tiny import Stopper, lines, timeless, to, weights


def record(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "config.json").read_text()))


def test_a_run_moves_with_its_images_under_other_names(
    config: TrainConfig, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, reporter=Reporter())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(images, "pictures")
    with pytest.raises(Interrupted):
        train(to(config, Path("cut"), data="folder:pictures"), reporter=Stopper(5))
    monkeypatch.chdir(tmp_path)
    shutil.move("here/cut", "moved")
    assert weights(train(resume="moved", reporter=Stopper(-1))) == weights(whole)

    shutil.rmtree("moved")
    with pytest.raises(Interrupted):
        train(to(config, Path("moved"), data="folder:here/pictures"), reporter=Stopper(5))
    shutil.move("here/pictures", "renamed")
    with pytest.raises(DataError, match=r"If the images .* have moved, name their place with --d"):
        train(resume="moved", reporter=Reporter())
    assert main(["--resume", "moved", "--data", "folder:renamed"]) == 0
    assert weights(Path("moved")) == weights(whole)
    assert timeless(Path("moved")) == timeless(whole)
    (tmp_path / "renamed" / "05.png").unlink()
    with pytest.raises(ValueError, match=r"26 images .*now there are 25 images .*Name their place"):
        train(resume="moved", reporter=Reporter())


# More epochs, and other settings --------------------------------------------------------------


def test_a_finished_run_is_extended_and_says_what_the_rate_does(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(dataclasses.replace(config, samples=0), reporter=Reporter())
    assert main(["--resume", str(run), "--epochs", "4"]) == 0
    out = capsys.readouterr().out
    assert "from step 12 on: epochs 2 -> 4" in out
    assert "rate, which had come to 0, goes on with 0.0001: " in out
    assert "all of the 24 steps, and falls to 0 at the last" in out
    assert record(run)["changes"] == [{"step": 12, "changed": {"epochs": [2, 4]}}]
    rates = {line["step"]: line["lr"] for line in lines(run)}
    assert rates[12] == learning_rate(config.lr, 11, 12)
    assert rates[14] == learning_rate(config.lr, 13, 24)
    # It is stopped and resumed as exactly as any other.
    twin = train(to(config, tmp_path / "twin", samples=0), reporter=Reporter())
    longer = to(config, tmp_path / "twin", samples=0, epochs=4)
    with pytest.raises(Interrupted):
        train(longer, resume=twin, reporter=Stopper(15))
    assert weights(train(resume=twin, reporter=Reporter())) == weights(run)
    assert timeless(twin) == timeless(run)
    with pytest.raises(ValueError, match="made 24 steps already, more than the 6 that epochs 1"):
        train(to(config, tmp_path / "twin", samples=0, epochs=1), resume=twin, reporter=Reporter())


def test_a_run_goes_on_with_another_rate_and_solver_and_tells_of_it(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, samples=0)
    with pytest.raises(Interrupted):
        train(config, reporter=Stopper(5))
    run = tmp_path / "run"
    whole = train(to(config, tmp_path / "whole"), reporter=Reporter())
    changed = dataclasses.replace(config, lr=1e-5, lr_schedule="constant", solver="midpoint")
    listener = Stopper(-1)
    train(changed, resume=run, reporter=listener)
    assert "from step 5 on: solver 'euler' -> 'midpoint', lr 0.0002 -> 1e-05, lr_" in str(
        listener.notes
    )
    assert weights(run) != weights(whole)
    assert lines(run)[-1]["lr"] == 1e-5
    assert record(run)["config"]["solver"] == "midpoint"  # type: ignore[index]


def test_a_kill_between_a_change_and_its_first_checkpoint_loses_nothing(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(dataclasses.replace(config, samples=0, epochs=1), reporter=Reporter())

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    for epochs in (2, 3):
        with monkeypatch.context() as patch:
            patch.setattr("liquid_ode.training.trainer.Trainer.train", kill)
            with pytest.raises(Killed):
                train(
                    dataclasses.replace(config, samples=0, epochs=epochs),
                    resume=run, reporter=Reporter(),
                )  # fmt: skip
    train(resume=run, reporter=Reporter())
    assert [change["changed"] for change in record(run)["changes"]] == [  # type: ignore[attr-defined]
        {"epochs": [1, 2]}, {"epochs": [2, 3]},
    ]  # fmt: skip
    assert lines(run)[-1]["step"] == 18
    # A checkpoint of settings that the run never had is another's.
    other = train(dataclasses.replace(config, samples=0, lr=0.5, output=str(run) + "2"),
                  reporter=Reporter())  # fmt: skip
    (run / "checkpoint.safetensors").write_bytes((other / "checkpoint.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"not of this run: it was made with .*lr 0\.5"):
        train(resume=run, reporter=Reporter())


def test_a_diverged_run_is_tried_again_with_another_rate(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = GaussianDiffusion.forward, iter(range(100))

    def spoiled(self: GaussianDiffusion, *inputs: Any) -> torch.Tensor:
        return loss(self, *inputs) * (float("nan") if next(calls) == 4 else 1.0)

    config = dataclasses.replace(config, samples=0, checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(GaussianDiffusion, "forward", spoiled)
        with pytest.raises(TrainingError, match=r"of step 4, is kept .*--resume \S+/run --lr X"):
            train(config, reporter=Reporter())
    run = Path(str(config.output))
    assert main(["--resume", str(run), "--lr", "1e-5"]) == 0
    assert record(run)["changes"] == [{"step": 4, "changed": {"lr": [2e-4, 1e-5]}}]
    assert [line["step"] for line in lines(run)] == [2, 4, 6, 8, 10, 12]
