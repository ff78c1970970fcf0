"""Runs that repeat, and that resume after a stop, bit for bit."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from liquid_ode.training import (
    Interrupted,
    Reporter,
    TrainConfig,
    load_config,
    load_run,
    train,
)
from tests.training.tiny import Stopper, command, lines, timeless, to, wait_for, weights


def test_the_same_seed_gives_the_same_bytes(config: TrainConfig, tmp_path: Path) -> None:
    torch.manual_seed(11)
    one = train(config, reporter=Reporter())
    torch.manual_seed(12)  # what the process drew before does not matter
    two = train(to(config, tmp_path / "two", sample_every=2), reporter=Reporter())
    other = train(to(config, tmp_path / "other", seed=1), reporter=Reporter())
    assert weights(one) == weights(two)
    assert timeless(one) == timeless(two)
    assert not set(weights(one)) & set(weights(other))


@pytest.mark.parametrize(("at", "signum"), [(3, signal.SIGTERM), (6, signal.SIGINT)])
def test_stopping_and_resuming_changes_nothing(
    config: TrainConfig, tmp_path: Path, at: int, signum: int
) -> None:
    whole = train(config, reporter=Reporter())
    cut = to(config, tmp_path / "cut")
    stopper = Stopper(at, signum)
    with pytest.raises(Interrupted) as caught:
        train(cut, reporter=stopper)
    assert caught.value.code == 128 + signum
    assert f"--resume {tmp_path / 'cut'}" in stopper.notes[-1]
    assert f"step {at} of 12" in stopper.notes[-1]
    torch.manual_seed(99)
    run = train(resume=tmp_path / "cut", reporter=Reporter())
    assert weights(run) == weights(whole)
    assert timeless(run) == timeless(whole)
    grids = [path.relative_to(whole) for path in sorted((whole / "samples").iterdir())]
    assert [(run / grid).read_bytes() for grid in grids] == [
        (whole / grid).read_bytes() for grid in grids
    ]


def test_lines_after_the_checkpoint_are_cut_on_resuming(
    config: TrainConfig, tmp_path: Path
) -> None:
    whole = train(config, reporter=Reporter())
    with pytest.raises(Interrupted):
        train(to(config, tmp_path / "cut"), reporter=Stopper(7))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "epoch": 2, "loss": 1.0}\n{"step": 10, "ep')  # a kill came here
    run = train(resume=tmp_path / "cut", reporter=Reporter())
    assert timeless(run) == timeless(whole)


def test_resuming_a_finished_run_says_so(config: TrainConfig) -> None:
    run = train(config, reporter=Reporter())
    before = weights(run)
    (run / "samples" / "epoch_0002.png").unlink()
    listener = Stopper(-1)
    assert train(resume=run, reporter=listener) == run
    assert any("is finished: all of its 12 steps are made" in note for note in listener.notes)
    assert weights(run) == before
    assert (run / "samples" / "epoch_0002.png").exists()


def test_resuming_before_the_first_checkpoint_starts_over(config: TrainConfig) -> None:
    run = train(config, reporter=Reporter())
    before = weights(run)
    for name in ("checkpoint.safetensors", "model.safetensors", "ema.safetensors"):
        (run / name).unlink()
    assert weights(train(resume=run, reporter=Reporter())) == before


def test_a_resumed_run_refuses_other_settings_by_name(config: TrainConfig, tmp_path: Path) -> None:
    run = train(dataclasses.replace(config, max_steps=2, samples=0), reporter=Reporter())
    other = dataclasses.replace(load_config(run), epochs=3, seed=5, batch_size=2)
    with pytest.raises(ValueError, match=r"settings: batch_size 4 -> 2, seed 0 -> 5\. A run can"):
        train(other, resume=run)
    free = dataclasses.replace(
        load_config(run), log_every=7, checkpoint_every=9, samples=2, precision="auto"
    )
    assert train(free, resume=run, reporter=Reporter()) == run


def test_a_resumed_run_refuses_other_data(config: TrainConfig, images: Path) -> None:
    run = train(dataclasses.replace(config, max_steps=2, samples=0), reporter=Reporter())
    extra = images / "zz.png"
    Image.new("RGB", (8, 8)).save(extra)
    try:
        with pytest.raises(ValueError, match=r"made with 26 images .* and now there are 27 images"):
            train(resume=run, reporter=Reporter())
    finally:
        extra.unlink()


class Little(torch.nn.Module):
    """A model that is compiled in a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.conv(x)) * (1 + t / 1000)[:, None, None, None]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler here")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
def test_a_compiled_run_resumes_bit_for_bit_and_its_files_are_plain(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        config, samples=0, epochs=1, compile=True, model="improved", model_options={}
    )

    def little() -> Little:  # to compile
        torch.manual_seed(0)
        return Little()

    quiet = Reporter()
    plain = train(to(config, tmp_path / "plain", compile=False), model=little(), reporter=quiet)
    whole = train(config, model=little(), reporter=quiet)
    with pytest.raises(Interrupted):
        train(to(config, tmp_path / "cut"), model=little(), reporter=Stopper(3))
    run = train(resume=tmp_path / "cut", model=little(), reporter=quiet)
    assert weights(run) == weights(whole)
    load_run(run, model=little(), device="cpu")
    for a, b in zip(lines(whole), lines(plain), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


# Other processes ------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_another_process_stopped_in_an_epoch_is_resumed_exactly(
    config: TrainConfig, tmp_path: Path, signum: signal.Signals
) -> None:
    config = dataclasses.replace(config, epochs=16, sample_every=20)
    cut = to(config, tmp_path / "cut")
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore::FutureWarning"}  # of other packages
    with subprocess.Popen(command(cut), **pipes, env=quiet) as process:
        wait_for(tmp_path / "cut" / "ema.safetensors", process)
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    if signum == signal.SIGTERM:
        assert process.returncode == 143, err
        assert "stopped by SIGTERM; continue with" in out
    else:
        assert process.returncode == -signal.SIGKILL, err
    assert err == ""
    load_run(tmp_path / "cut", device="cpu")  # whole files, whenever the kill came
    run = train(resume=tmp_path / "cut", reporter=Reporter())
    whole = train(config, reporter=Reporter())
    assert weights(run) == weights(whole)
    assert timeless(run) == timeless(whole)
