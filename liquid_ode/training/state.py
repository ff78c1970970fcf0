"""All that a run needs to go on: weights, averaged weights, optimizer, counters; saved and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from liquid_ode.training.checkpoint import (
    check_description,
    copy_into,
    load_optimizer,
    optimizer_tensors,
    part,
    read_tensors,
    save_weights,
    under,
    write_tensors,
)
from liquid_ode.training.config import TrainConfig
from liquid_ode.training.continuing import check_settings
from liquid_ode.training.errors import CheckpointError
from liquid_ode.training.run_directory import RunDirectory


@dataclass
class Interval:
    """Sums over the steps since the last line of metrics, or since the epoch began."""

    steps: int = 0
    losses: float = 0.0
    norms: float = 0.0
    seconds: float = 0.0  # of the steps alone, without samples and checkpoints

    def add(self, loss: float, norm: float, seconds: float) -> None:
        self.steps += 1
        self.losses += loss
        self.norms += norm
        self.seconds += seconds

    @property
    def loss(self) -> float:
        return self.losses / max(self.steps, 1)

    @property
    def norm(self) -> float:
        return self.norms / max(self.steps, 1)

    def images_per_second(self, images_per_step: int) -> float:
        return self.steps * images_per_step / max(self.seconds, 1e-9)


@dataclass
class Counters:
    """How far a run has come."""

    step: int = 0  # optimizer steps made
    seconds: float = 0.0  # in all sessions
    interval: Interval = field(default_factory=Interval)
    epoch: Interval = field(default_factory=Interval)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Counters:
        return cls(
            saved["step"],
            saved["seconds"],
            Interval(**saved["interval"]),
            Interval(**saved["epoch"]),
        )


class RunState:
    """The state of a run, and its place in the run directory.

    Args:
        averages: of the weights, by the names of their files; "ema" is among them.
        description: what the files of weights say of the model.
        scaler: the gradient scaler of fp16, where there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        averages: Mapping[str, AveragedModel],
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        description: dict[str, Any],
    ) -> None:
        self.model, self.averages = model, averages
        self.optimizer, self.scaler = optimizer, scaler
        self.description = description
        self.progress = Counters()
        self.saved_step: int | None = None  # of the checkpoint on disk

    def save(self, run: RunDirectory, config: TrainConfig) -> None:
        """Save everything as one file, whole, and then the weights.

        Raises:
            TrainingError: it could not be saved; the files that were there are kept.
        """
        tensors = {
            **under("model", self.model.state_dict()),
            **under("optimizer", optimizer_tensors(self.optimizer, self.model)),
        }
        for name, average in self.averages.items():
            tensors |= under(name, average.state_dict())
        header = {
            "model": self.description,
            "config": config.to_dict(),
            "progress": self.progress.to_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }
        write_tensors(run.checkpoint, "checkpoint", header, tensors)
        self.saved_step = self.progress.step
        self.save_weights(run)

    def save_weights(self, run: RunDirectory) -> None:
        """Save the weights alone, for use outside training."""
        save_weights(run.weights("model"), self.model, self.description)
        for name, average in self.averages.items():
            save_weights(run.weights(name), average.module, self.description)

    def restore(
        self, run: RunDirectory, config: TrainConfig, history: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Take everything from the run's checkpoint.

        Args:
            run: the run directory.
            config: the run's settings.
            history: how they have changed, as ``config.json`` tells it.

        Raises:
            CheckpointError: the checkpoint is missing, broken, or of another model.
        """
        header, tensors = read_tensors(run.checkpoint, "checkpoint")
        what, whose = str(run.checkpoint), f"model {config.model!r} of {run.config}"
        check_description(header.get("model"), self.description, what, whose)
        check_settings(header.get("config"), config, history, what)
        copy_into(self.model, part(tensors, "model"), what, whose)
        for name, average in self.averages.items():
            copy_into(average, part(tensors, name), what, whose)
        load_optimizer(self.optimizer, self.model, part(tensors, "optimizer"))
        try:
            self.progress = Counters.from_dict(header["progress"])
            if self.scaler is not None and header["scaler"] is not None:
                self.scaler.load_state_dict(header["scaler"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{what}: its header is incomplete ({error})") from error
        self.saved_step = self.progress.step
