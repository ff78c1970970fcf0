"""Whole runs, tiny ones: what they leave, that they repeat, and that they resume, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from liquid_ode.diffusion import GaussianDiffusion
from liquid_ode.training import (
    CheckpointError,
    Interrupted,
    Reporter,
    TrainConfig,
    TrainingError,
    load_config,
    load_run,
    train,
)
from solvers import Midpoint

SCRIPT = Path(__file__).parents[2] / "examples" / "train_cifar.py"
SMALL = {"channels": 8, "hidden": [4, 4, 4], "inner": 8, "conditioning": 8, "steps": [1, 1, 1]}


class Stopper(Reporter):
    """Sends this process a signal after a step."""

    def __init__(self, at: int, signum: int = signal.SIGTERM) -> None:
        self.at, self.signum, self.notes = at, signum, list[str]()

    def step(self, step: int, epoch: str, loss: float, images_per_second: float) -> None:
        if step == self.at:
            os.kill(os.getpid(), self.signum)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 26 images."""
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for index in range(26):
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{index:02d}.png")
    return folder


@pytest.fixture
def config(images: Path, tmp_path: Path) -> TrainConfig:
    """Two epochs of six steps."""
    return TrainConfig(
        model_options=SMALL, data=f"folder:{images}", image_size=8, epochs=2, batch_size=4,
        samples=4, sample_steps=2, log_every=2, threads=1, device="cpu",
        output=str(tmp_path / "run"),
    )  # fmt: skip


def to(config: TrainConfig, output: Path, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, output=str(output), **changes)


def weights(run: Path) -> tuple[bytes, bytes]:
    return (run / "model.safetensors").read_bytes(), (run / "ema.safetensors").read_bytes()


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def timeless(run: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "images_per_second")}
        for line in lines(run)
    ]


# What a run leaves ----------------------------------------------------------------------------


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


# Bit for bit ----------------------------------------------------------------------------------


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
    other = dataclasses.replace(load_config(run), epochs=3, lr=0.5)
    with pytest.raises(ValueError, match=r"epochs 2 -> 3, lr 0.0002 -> 0.5\. .*learning rate"):
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
        with pytest.raises(ValueError, match=r"made with data .*26.* and now there is .*27"):
            train(resume=run, reporter=Reporter())
    finally:
        extra.unlink()


# Other processes ------------------------------------------------------------------------------


def command(config: TrainConfig) -> list[str]:
    """The command line of the same run."""
    arguments = [
        "--data", config.data, "--image-size", "8", "--epochs", str(config.epochs),
        "--batch-size", "4", "--samples", "4", "--sample-steps", "2", "--log-every", "2",
        "--threads", "1", "--device", "cpu", "--checkpoint-every", "5",
        "--sample-every", str(config.sample_every), "--output", str(config.output),
    ]  # fmt: skip
    for key, value in SMALL.items():
        arguments += ["--model-option", f"{key}={value}"]
    return [sys.executable, str(SCRIPT), *arguments]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)


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


def test_two_processes_share_each_step_and_leave_one_record(
    config: TrainConfig, tmp_path: Path
) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [*launcher, *command(to(config, tmp_path / "two"))[1:]]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == done.stdout.count("more  ") == 1
    assert "x 2 processes" in done.stdout
    found = lines(tmp_path / "two")
    assert [line["step"] for line in found] == [2, 3, 4, 6]  # 26 images, 8 in a step
    with pytest.raises(ValueError, match="made with processes 2, and now there is 1"):
        train(resume=tmp_path / "two")


# Failures -------------------------------------------------------------------------------------


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
    from liquid_ode.data import ImageSet

    pixels = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    data = ImageSet(pixels, torch.arange(12) % 3)
    monkeypatch.setattr("liquid_ode.training.run.load_images", lambda *_, **__: data)
    run = train(dataclasses.replace(config, class_conditional=True, epochs=1), reporter=Reporter())
    assert load_run(run, device="cpu").num_classes == 3


# Back from the directory ----------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="weights must be 'ema' or 'model', got 'best'"):
        load_run(run, weights="best")
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
