"""Several processes: the same steps as one, up to rounding; from one to two and back."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from liquid_ode.diffusion import BatchNormalisedMinSNR, GaussianDiffusion
from liquid_ode.training import Reporter, TrainConfig, train
from liquid_ode.training.machine import accelerator
from tests.training.tiny import command, lines, to, weights


def launch(arguments: list[str], processes: int = 2) -> str:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *launcher, *arguments],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_close(run: Path, other: Path) -> None:
    for name in ("model", "ema"):
        one, two = (load_file(r / f"{name}.safetensors") for r in (run, other))
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert [line["step"] for line in lines(run)] == [line["step"] for line in lines(other)]
    for a, b in zip(lines(run), lines(other), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_two_processes_make_the_steps_of_one_and_leave_one_record(
    config: TrainConfig, tmp_path: Path
) -> None:
    two = to(config, tmp_path / "two")
    extra = ["--weighting", "min-snr-batch", "--flip", "--gradient-accumulation", "2"]
    out = launch([*command(two)[1:], *extra])
    assert out.count("epoch 2/2") == out.count("more  ") == 1
    assert "2 processes" in out
    one = dataclasses.replace(config, weighting="min-snr-batch", flip=True, gradient_accumulation=2)
    assert_close(train(one, reporter=Reporter()), tmp_path / "two")


def test_a_run_goes_on_with_two_processes_and_back_with_one(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, samples=0)
    moved = to(config, tmp_path / "moved", epochs=1)
    train(moved, reporter=Reporter())
    launch([str(command(config)[1]), "--resume", str(moved.output), "--epochs", "2"])
    train(to(config, tmp_path / "moved", epochs=3), resume=moved.output, reporter=Reporter())
    other = to(config, tmp_path / "other", epochs=1)
    for epochs in (1, 2, 3):
        resume = None if epochs == 1 else other.output
        train(dataclasses.replace(other, epochs=epochs), resume=resume, reporter=Reporter())
    assert_close(tmp_path / "moved", tmp_path / "other")
    assert weights(tmp_path / "moved") != weights(tmp_path / "other")  # they were two, once


def test_the_loss_of_a_batch_is_the_mean_over_its_shares() -> None:
    class Net(torch.nn.Module):
        num_classes = 3

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return x * self.scale[labels].view(-1, 1, 1, 1)

    diffusion = GaussianDiffusion(Net(), weighting=BatchNormalisedMinSNR(5.0), class_dropout=0.5)
    x, labels = torch.rand(6, 3, 4, 4) * 2 - 1, torch.arange(6) % 3

    def draw() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    whole = diffusion.losses(x, labels, draw())
    parts = [
        diffusion.losses(x[k : k + 2], labels[k : k + 2], draw(), rows=(k, 6)) for k in (0, 2, 4)
    ]
    for name in ("t", "unweighted", "weighted"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))


def test_accelerate_launch_on_cpus_that_starts_one_process_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with (
        pytest.raises(ValueError, match=r"accelerate launch .*one process.*torchrun"),
        accelerator("no", torch.device("cpu"), 1),
    ):
        pass
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")  # under mpirun there are as many as it says
    with accelerator("no", torch.device("cpu"), 1) as engine:
        assert engine.num_processes == 1
    assert os.environ["MASTER_PORT"] == "29500"
