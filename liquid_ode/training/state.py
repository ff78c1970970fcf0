"""All that a run needs to go on: weights, averaged weights, optimizer, counters; saved and back."""

from __future__ import annotations

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
from liquid_ode.training.errors import CheckpointError
from liquid_ode.training.files import RunDirectory
from liquid_ode.training.progress import Progress
from liquid_ode.training.resuming import check_settings


class RunState:
    """The state of a run, and its place in the run directory.

    Args:
        description: what the files of weights say of the model.
        scaler: the gradient scaler of fp16, where there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        ema: AveragedModel,
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        description: dict[str, Any],
    ) -> None:
        self.model, self.ema, self.optimizer, self.scaler = model, ema, optimizer, scaler
        self.description = description
        self.progress = Progress()
        self.saved_step: int | None = None  # of the checkpoint on disk

    def save(self, run: RunDirectory, config: TrainConfig) -> None:
        """Save everything as one file, whole, and then the weights.

        Raises:
            TrainingError: it could not be saved; the files that were there are kept.
        """
        tensors = {
            **under("model", self.model.state_dict()),
            **under("ema", self.ema.state_dict()),
            **under("optimizer", optimizer_tensors(self.optimizer, self.model)),
        }
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
        save_weights(run.weights("ema"), self.ema.module, self.description)

    def restore(self, run: RunDirectory, config: TrainConfig) -> None:
        """Take everything from the run's checkpoint.

        Raises:
            CheckpointError: the checkpoint is missing, broken, or of another model.
        """
        header, tensors = read_tensors(run.checkpoint, "checkpoint")
        what, whose = str(run.checkpoint), f"model {config.model!r} of {run.config}"
        check_description(header.get("model"), self.description, what, whose)
        check_settings(header.get("config"), config, what)
        copy_into(self.model, part(tensors, "model"), what, whose)
        copy_into(self.ema, part(tensors, "ema"), what, whose)
        load_optimizer(self.optimizer, self.model, part(tensors, "optimizer"))
        try:
            self.progress = Progress.from_dict(header["progress"])
            if self.scaler is not None:
                self.scaler.load_state_dict(header["scaler"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{what}: its header is incomplete ({error})") from error
        self.saved_step = self.progress.step
