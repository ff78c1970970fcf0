"""``train``: from settings to a run directory."""

from __future__ import annotations

import dataclasses
import platform
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import liquid_ode
from liquid_ode.data import ImageSet, load_images, size_text
from liquid_ode.training.build import build_model, describe_data, describe_model, limited
from liquid_ode.training.config import TrainConfig
from liquid_ode.training.continuing import check_facts, merge
from liquid_ode.training.machine import (
    accelerator,
    reproducible,
    resolve_device,
    resolve_precision,
)
from liquid_ode.training.reporting import ConsoleReporter, Reporter, duration
from liquid_ode.training.run_directory import RunDirectory
from liquid_ode.training.trainer import Trainer


def train(
    config: TrainConfig | None = None,
    *,
    resume: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Train a model and return its run directory.

    The directory holds ``config.json``, ``metrics.jsonl``, ``loss.png``, ``samples/``, the
    averaged and the trained weights (``ema.safetensors``, ``model.safetensors``) and the state to
    resume from (``checkpoint.safetensors``).

    The same settings give the same weights, bit for bit, on the same kind of device with the same
    number of threads and versions; and so does a run that is stopped and resumed.

    Args:
        config: the settings. Left out, those of the run that is resumed, or the defaults.
        resume: the directory of a run to go on with, from its last checkpoint.
        reporter: who is told of progress; the console if left out. ``Reporter()`` is silent.

    Raises:
        ValueError: the settings do not fit the data, the machine or the run to be resumed, or the
            directory already holds a run or is in use by another process.
        liquid_ode.data.DataError: the images cannot be had.
        CheckpointError: the run to be resumed is broken or missing.
        TrainingError: the loss became NaN or infinite, or something could not be saved.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the state is saved and can be resumed.
            (SIGUSR1 saves the state, and the run goes on.)
    """
    saved: dict[str, Any] | None = None
    if resume is not None:
        run = RunDirectory(resume)
        saved_config, saved = run.read_record()
        config = merge(saved_config, config or saved_config, run)
    else:
        config = config or TrainConfig()
        run = RunDirectory(config.output or Path("runs") / config.run_name)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    config = dataclasses.replace(config, precision=precision, output=str(run.path))
    with ExitStack() as stack:
        stack.enter_context(
            reproducible(config.seed, deterministic=config.deterministic, threads=config.threads)
        )
        engine = stack.enter_context(accelerator(precision, device, config.gradient_accumulation))
        told = (reporter or ConsoleReporter()) if engine.is_main_process else Reporter()
        if saved is not None and engine.is_main_process:
            _lock(stack, run, told)
        with engine.main_process_first():  # one process fetches the data, the others find it
            data = limited(
                load_images(
                    config.data,
                    config.data_root,
                    image_size=config.image_size,
                    image_channels=config.image_channels,
                    labelled=config.class_conditional,
                    limit=config.limit,
                ),
                config.limit,
            )
        torch.manual_seed(config.seed)  # the model's, whatever loading the data has drawn
        num_classes = data.num_classes if config.class_conditional else None
        model = build_model(config, num_classes)
        facts = run_facts(data, model, engine.num_processes)
        trainer = Trainer(
            config,
            run,
            model=model,
            data=data,
            accelerator=engine,
            description=describe_model(config, num_classes),
            reporter=told,
        )
        if saved is not None:
            check_facts(saved, facts, run)
            trainer.restore()
        elif engine.is_main_process:  # all that can be wrong with a new run has been looked at
            _lock(stack, run, told)
            run.refuse_existing()
        if engine.is_main_process:
            run.write_record(config, facts)
        stack.callback(told.close)
        _run(trainer, summary(config, trainer, data, facts), resumed=saved is not None)
    return run.path


def _lock(stack: ExitStack, run: RunDirectory, reporter: Reporter) -> None:
    """Keep other processes out of the run directory until the end of ``stack``."""
    if not stack.enter_context(run.locked()):
        reporter.note(f"{run.path} cannot be locked here: see that no other process trains there")


def _run(trainer: Trainer, facts: dict[str, str], *, resumed: bool) -> None:
    reporter, step = trainer.reporter, trainer.progress.step
    if trainer.finished:
        reporter.note(
            f"{trainer.run.path} is finished: all of its {trainer.total:,} steps are made"
        )
    else:
        reporter.start(facts, step, trainer.total)
        if resumed:
            reporter.note(f"going on after step {step:,} of {trainer.total:,}")
    began = time.perf_counter()
    trainer.train()
    if step < trainer.total:
        reporter.note(f"finished in {duration(time.perf_counter() - began)}")


def run_facts(data: ImageSet, model: nn.Module, processes: int) -> dict[str, Any]:
    """What ``config.json`` records beside the settings."""
    return {
        "data": describe_data(data),
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
    processes = f" x {engine.num_processes} processes" if engine.num_processes > 1 else ""
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
        "solver": f"{config.solver}{_options(config.solver_options)}"
        if config.has_cells
        else "none: the model has no liquid cells",
        "data": f"{data.name}, {len(data):,} images of {shape}",
        "device": f"{engine.device}, {precision}{threads}{processes}",
        "steps": (
            f"{trainer.total:,} ({batches.steps_per_epoch:,} per epoch), "
            f"batch {config.batch_size}{accumulated}"
        ),
        "run": f"{trainer.run.path}",
    }


def _options(options: dict[str, Any]) -> str:
    return "".join(f", {name}={value}" for name, value in options.items())
