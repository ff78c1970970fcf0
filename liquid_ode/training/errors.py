"""What can go wrong in a run, each under its own name."""

from __future__ import annotations

import signal
from pathlib import Path


class TrainingError(RuntimeError):
    """A run could not go on: its loss became NaN or infinite, or its state could not be saved."""


class CheckpointError(ValueError):
    """A file of weights or of a run's state is missing, broken, foreign, or of another model."""


class Interrupted(SystemExit):
    """A run was stopped by a signal, after its state had been saved.

    Like ``KeyboardInterrupt`` it passes through ``except Exception``; left uncaught it ends the
    process quietly with the status that shells use for that signal (130 for SIGINT, 143 for
    SIGTERM), which is also ``.code``.
    """

    def __init__(self, signum: int, run_dir: Path) -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.run_dir = run_dir

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        return f"stopped by {name}; continue with --resume {self.run_dir}"
