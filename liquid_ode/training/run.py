"""``train``: from settings to a run directory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import solvers
from liquid_ode.data import DataError, ImageSet, as_image_set, load_images
from liquid_ode.data.places import expanded
from liquid_ode.training.build import build_model, describe_model, limited
from liquid_ode.training.config import TrainConfig
from liquid_ode.training.continuing import Changes, changes, check_data, merge, told
from liquid_ode.training.evaluating import cifar10_evaluation
from liquid_ode.training.facts import run_facts, summary
from liquid_ode.training.initial import Classes, describe, initialise
from liquid_ode.training.machine import (
    accelerator,
    reproducible,
    resolve_device,
    resolve_precision,
)
from liquid_ode.training.objects import Objects
from liquid_ode.training.rates import learning_rate
from liquid_ode.training.reporting import ConsoleReporter, Reporter, Reporters, duration
from liquid_ode.training.run_directory import RunDirectory
from liquid_ode.training.tracking import TensorBoard
from liquid_ode.training.trainer import Trainer

if TYPE_CHECKING:
    from liquid_ode.training.machine import Accelerator


def train(
    config: TrainConfig | None = None,
    *,
    resume: str | Path | None = None,
    dataset: Any = None,
    model: nn.Module | None = None,
    solver: solvers.Solver | None = None,
    reporter: Reporter | None = None,
    callbacks: Sequence[Reporter] = (),
) -> Path:
    """Train a model and return its run directory.

    The directory holds ``config.json``, ``metrics.jsonl``, ``loss.png``, ``samples/``, the
    averaged and the trained weights (``ema.safetensors``, ``model.safetensors``) and the state to
    resume from (``checkpoint.safetensors``).

    The same settings give the same weights, bit for bit, on the same kind of device with the same
    number of threads, processes and versions; and so does a run that is stopped and resumed. On
    another number of processes they are the same up to rounding.

    Objects that are given stand in for the setting of that name, and ``config.json`` says
    ``python:NAME`` there: to resume such a run, or to load its weights, give them again.

    Args:
        config: the settings. Left out, those of the run that is resumed, or the defaults.
        resume: the directory of a run to go on with, from its last checkpoint. ``config`` may then
            have other settings of those that ``continuing.merge`` allows (more ``epochs``, another
            ``lr``): the record tells of the change.
        dataset: the images, as :func:`liquid_ode.data.as_image_set` takes them: a torch ``Dataset``
            or any iterable of uint8 tensors, arrays or Pillow images, with or without labels.
        model: any network that is called as ``model(x, t)`` or ``model(x, t, class_labels)``; see
            :class:`liquid_ode.GaussianDiffusion`. It is trained in place.
        solver: drives the cells of the model that ``config`` names.
        reporter: who is told of progress; the console if left out. ``Reporter()`` is silent.
        callbacks: more reporters, which are told too.

    Raises:
        ValueError: the settings do not fit the data, the machine or the run to be resumed, or the
            directory already holds a run or is in use by another process.
        liquid_ode.data.DataError: the images cannot be had.
        CheckpointError: the run to be resumed is broken or missing.
        TrainingError: the loss became NaN or infinite, or something could not be saved.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the state is saved and can be resumed.
            (SIGUSR1 saves the state, and the run goes on.)
    """
    objects = Objects(dataset, model, solver)
    saved: Saved | None = None
    if resume is not None:
        run = RunDirectory(resume)
        if run.pretrained:
            raise ValueError(
                f"{run.title} has no state to go on with: begin a run with its weights by "
                f"--init-from {run.title}"
            )
        saved = Saved(*run.read_record())
        config = merge(saved.config, _prepared(config or saved.config, objects), run)
    else:
        config = _prepared(config or TrainConfig(), objects)
        run = RunDirectory(config.output or Path("runs") / config.run_name)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    config = dataclasses.replace(config, precision=precision, output=str(run.path))
    with ExitStack() as stack:
        stack.enter_context(
            reproducible(config.seed, deterministic=config.deterministic, threads=config.threads)
        )
        engine = stack.enter_context(
            accelerator(
                precision,
                device,
                config.gradient_accumulation,
                growing=config.progressive > 0,
            )
        )
        listener = Reporter()
        if engine.is_main_process:
            more = [TensorBoard()] if config.tensorboard else []
            listener = Reporters([reporter or ConsoleReporter(), *more, *callbacks])
            if saved is not None:
                _lock(stack, run, listener)
        data = _images(config, objects, engine, resumed=saved is not None)
        if config.evaluate_every is not None and engine.is_main_process:
            evaluation = cifar10_evaluation(config, data, device, listener.note)
            listener = Reporters([listener, evaluation])
        trainer, facts = _trainer(config, objects, run, data, engine, listener)
        if saved is not None:
            check_data(saved.record["data"], facts["data"], run)
            facts |= _go_on(trainer, saved)
        elif engine.is_main_process:  # all that can be wrong with a new run has been looked at
            _lock(stack, run, listener)
            run.refuse_existing()
        if engine.is_main_process:
            run.write_record(config, facts)
        stack.callback(listener.close)
        _run(trainer, summary(config, trainer, data, facts), resumed=saved is not None)
    return run.path


@dataclasses.dataclass(frozen=True)
class Saved:
    """What ``config.json`` holds of a run that is resumed."""

    config: TrainConfig
    record: Mapping[str, Any]

    @property
    def history(self) -> list[dict[str, Any]]:
        return list(self.record.get("changes", []))


def _prepared(config: TrainConfig, objects: Objects) -> TrainConfig:
    """The settings with objects named, and with places that mean the same from everywhere."""
    config = objects.named(config)
    kind, _, path = config.data.partition(":")
    places: dict[str, Any] = {}
    if kind == "folder":
        places["data"] = f"{kind}:{expanded(path, 'The image folder').absolute()}"
    if config.data_root is not None:
        places["data_root"] = str(expanded(config.data_root, "The data cache").absolute())
    if config.init_from is not None:
        run = RunDirectory(config.init_from)
        places["init_from"] = run.title if run.pretrained else str(run.path.absolute())
    kind, _, path = config.solver.partition(":")
    if kind == "learned":
        places["solver"] = f"{kind}:{Path(path).absolute()}"
    return dataclasses.replace(config, **places)


def _images(
    config: TrainConfig, objects: Objects, engine: Accelerator, *, resumed: bool
) -> ImageSet:
    with engine.main_process_first():  # one process fetches the data, the others find it
        if objects.dataset is not None:
            return limited(
                as_image_set(
                    objects.dataset,
                    image_size=config.image_size,
                    image_channels=config.image_channels,
                    limit=config.limit,
                ),
                config.limit,
            )
        try:
            images = load_images(
                config.data,
                config.data_root,
                image_size=config.image_size,
                image_channels=config.image_channels,
                labelled=config.class_conditional,
                limit=config.limit,
            )
        except DataError as error:
            if not resumed:
                raise
            raise DataError(
                f"{error} If the images of this run have moved, name their place with --data"
            ) from error
        return limited(images, config.limit)


def _trainer(
    config: TrainConfig,
    objects: Objects,
    run: RunDirectory,
    data: ImageSet,
    engine: Accelerator,
    reporter: Reporter,
) -> tuple[Trainer, dict[str, Any]]:
    """The trainer of a run, new, and what is recorded of it."""
    torch.manual_seed(config.seed)  # the model's, whatever loading the data has drawn
    num_classes = data.num_classes if config.class_conditional else None
    model = objects.model
    if model is None:
        model = build_model(config, num_classes, objects.solver)
    elif config.class_conditional and getattr(model, "num_classes", None) != num_classes:
        raise ValueError(
            f"the model that is given has num_classes {getattr(model, 'num_classes', None)!r}, and "
            f"the data has {num_classes} classes: make the model with num_classes={num_classes}"
        )
    facts = run_facts(data, model, engine.num_processes, labelled=config.class_conditional)
    if record := objects.record():
        facts["objects"] = record
    if config.init_from is not None and not run.checkpoint.exists():
        lines = initialise(model, config, Classes(num_classes, data.class_names))
        facts |= describe(config, lines)
        for line in lines:
            reporter.note(line)
    trainer = Trainer(
        config,
        run,
        model=model,
        data=data,
        accelerator=engine,
        description=describe_model(config, num_classes),
        reporter=reporter,
    )
    return trainer, facts


def _go_on(trainer: Trainer, saved: Saved) -> dict[str, Any]:
    """Restore a run, with the changes of its settings; what its record has from before.

    Raises:
        CheckpointError: its checkpoint is broken, or of another run.
        ValueError: it has made more steps already than the settings ask for.
    """
    changed = changes(saved.config, trainer.config)
    now = {"step": trainer.progress.step, "changed": changed}
    trainer.restore([*saved.history, now])
    step, total = trainer.progress.step, trainer.total
    if step > total:
        raise ValueError(
            f"{trainer.run.path} has made {step:,} steps already, more than the {total:,} that "
            f"epochs {trainer.config.epochs} and max_steps {trainer.config.max_steps} ask for"
        )
    kept = {name: saved.record[name] for name in ("initial", "changes") if name in saved.record}
    if changed:
        kept["changes"] = [*saved.history, {**now, "step": step}]
        trainer.reporter.note(f"from step {step:,} on: {told(changed)}")
        _tell_rate(trainer, saved.config, changed)
    return kept


def _tell_rate(trainer: Trainer, before: TrainConfig, changed: Changes) -> None:
    if not changed.keys() & {"epochs", "max_steps", "lr", "lr_schedule", "warmup"}:
        return
    step, then, now = trainer.progress.step, trainer.steps_of(before), trainer.config
    old = learning_rate(
        before.lr, min(step, then), then, schedule=before.lr_schedule, warmup=before.warmup
    )
    goes = "stays there" if now.lr_schedule == "constant" else "falls to 0 at the last"
    trainer.reporter.note(
        f"the learning rate, which had come to {old:.3g}, goes on with "
        f"{trainer.learning_rate():.3g}: it is what these settings give over all of the "
        f"{trainer.total:,} steps, and {goes}"
    )


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
        reporter.start(facts, trainer.moment(float("nan")))
        if resumed:
            reporter.note(f"going on after step {step:,} of {trainer.total:,}")
    began = time.perf_counter()
    trainer.train()
    if step < trainer.total:
        reporter.note(f"finished in {duration(time.perf_counter() - began)}")
