"""What is recorded of a run beside its settings, and what a person is told of it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import liquid_ode
from liquid_ode.data import ImageSet, size_text
from liquid_ode.training.build import describe_data
from liquid_ode.training.config import TrainConfig, is_object

if TYPE_CHECKING:
    from liquid_ode.training.trainer import Trainer


def run_facts(
    data: ImageSet, model: nn.Module, processes: int, *, labelled: bool
) -> dict[str, Any]:
    """What ``config.json`` records beside the settings."""
    return {
        "data": describe_data(data, labelled=labelled),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "processes": processes,
        "versions": {
            "liquid_ode": liquid_ode.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "accelerate": version("accelerate"),
        },
    }


def summary(
    config: TrainConfig, trainer: Trainer, data: ImageSet, facts: dict[str, Any]
) -> dict[str, str]:
    """What a person wants to see before a run starts."""
    engine, batches = trainer.accelerator, trainer.batches
    processes = f", {engine.num_processes} processes" if engine.num_processes > 1 else ""
    accumulated = (
        f" x {config.gradient_accumulation} passes" if config.gradient_accumulation > 1 else ""
    )
    threads = f", {torch.get_num_threads()} threads" if engine.device.type == "cpu" else ""
    precision = "float32" if config.precision == "no" else config.precision
    size = f"{facts['parameters']:,} parameters"
    colours = {1: ", grey", 3: "", 4: ", with alpha"}[config.image_channels]
    shape = f"{size_text(*config.image_shape[1:])}{colours}"
    return {
        "model": f"{config.model}, {size}{_options(config.model_options)}",
        "solver": _solver(config),
        "data": f"{data.name}, {len(data):,} images of {shape}",
        "device": f"{engine.device}, {precision}{threads}{processes}",
        "steps": (
            f"{trainer.total:,} ({batches.steps_per_epoch:,} per epoch), "
            f"batch {config.batch_size}{accumulated}"
        ),
        "run": f"{trainer.run.path}",
    }


def _solver(config: TrainConfig) -> str:
    if is_object(config.model):
        return "the model's own"
    if not config.has_cells:
        return "none: the model has no liquid cells"
    return f"{config.solver}{_options(config.solver_options)}"


def _options(options: dict[str, Any]) -> str:
    return "".join(f", {name}={value}" for name, value in options.items())
