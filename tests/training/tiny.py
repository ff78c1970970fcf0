"""Tiny runs: their settings, their command line, and what they leave, for the tests to compare."""

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

from liquid_ode.training import Moment, Reporter, TrainConfig

SCRIPT = Path(__file__).parents[2] / "examples" / "train_cifar.py"
SMALL = {"channels": 8, "hidden": [4, 4, 4], "inner": 8, "conditioning": 8, "steps": [1, 1, 1]}


class Stopper(Reporter):
    """Sends this process a signal after a step."""

    def __init__(self, at: int, signum: int = signal.SIGTERM) -> None:
        self.at, self.signum, self.notes = at, signum, list[str]()

    def step(self, moment: Moment) -> None:
        if moment.step == self.at:
            os.kill(os.getpid(), self.signum)

    def note(self, text: str) -> None:
        self.notes.append(text)


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
    until = time.monotonic() + 240  # where other programs run
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
