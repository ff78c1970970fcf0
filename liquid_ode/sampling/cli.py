"""The command line of sampling: what a run's model draws, by which sampler, and where it goes."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import solvers
from liquid_ode.diffusion import (
    DDIM,
    GaussianDiffusion,
    Guidance,
    Progress,
    Sampled,
    Sampler,
    TrailingGrid,
)
from liquid_ode.diffusion.noise import resolve_seeds
from liquid_ode.diffusion.sampling import carrying_states
from liquid_ode.sampling.options import (
    choose_classes,
    choose_guidance,
    choose_sampler,
    given,
    name_of,
    refuse,
)
from liquid_ode.sampling.outputs import (
    AnimationOutput,
    ArrayOutput,
    Batch,
    FolderOutput,
    GridOutput,
    Output,
    free_path,
    sample_to,
)
from liquid_ode.sampling.parser import make_parser
from liquid_ode.training import TrainConfig, load_run
from liquid_ode.training.build import ddim_grid, shape_now
from liquid_ode.training.cli import TOLERANCES, run_reporting_errors
from liquid_ode.training.machine import autocast, resolve_device, resolve_precision, use_threads
from liquid_ode.training.run_directory import RunDirectory

_CELL_OPTIONS = ["solver", "solver_option", "solver_steps", *TOLERANCES, "warm_start"]


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Sample as the arguments say; returns the exit status."""
    options = make_parser(prog).parse(arguments)
    return run_reporting_errors(lambda: sample(options))


@dataclass
class Job:
    """What the options come to for one run."""

    config: TrainConfig
    diffusion: GaussianDiffusion
    sampler: Sampler
    guidance: Guidance
    classes: list[int] | None
    """which the images have in turn"""
    class_names: list[str] | None
    warm_start: bool

    def labels(self, n: int) -> list[int] | None:
        """Of ``n`` images; None where the model has no classes."""
        if self.classes is None:
            return None
        return [self.classes[i % len(self.classes)] for i in range(n)]

    def draw(self, batch: Batch, callback: Callable[[Progress], None]) -> Sampled:
        return self.sampler.draw(
            self.diffusion,
            len(batch.seeds),
            seeds=batch.seeds,
            class_labels=batch.labels,
            guidance=self.guidance,
            image_shape=shape_now(self.config, self.diffusion.model),
            warm_start=self.warm_start,
            callback=callback,
        )


def sample(options: argparse.Namespace) -> None:
    """Draw what the options of :func:`make_parser` ask for, and print what was done.

    Raises:
        ValueError: an option has a bad value, or no effect.
        CheckpointError: there is no run, or it is broken.
        OSError: an output could not be written.
    """
    for name, given_as in (("n", "-n"), ("batch_size", "--batch-size")):
        if getattr(options, name) < 1:
            raise ValueError(f"{given_as} must be at least 1, not {getattr(options, name)}")
    resolve_seeds(options.seed, options.n)  # which refuses bad ones before anything is written
    use_threads(options.threads)
    run = RunDirectory(options.run_dir)
    device = resolve_device(options.device)
    options.precision = resolve_precision(options.precision, device)
    job = prepare(options.run_dir, options, device)
    config, classes, names = job.config, job.classes, job.class_names
    kept = run.weights(options.weights)
    # An average that was put together just now is a matter of the run's state.
    weights = f"{options.weights} {_checksum(kept if kept.is_file() else run.checkpoint)}"
    outputs = open_outputs(options, _record(options, job, weights))

    solver = f", solver {options.solver or config.solver}" if config.has_cells else ""
    print(f"model    {config.model} of {run.title} ({options.weights} weights){solver}")
    number = "float32" if options.precision == "no" else options.precision
    print(f"sampler  {job.sampler}, {device}, {number}")
    if options.class_label and classes is not None:
        print(f"classes  {', '.join(f'{k} {names[k]}' if names else str(k) for k in classes)}")
    began = time.perf_counter()
    evaluations = _draw_all(options, job, outputs, autocast(device, options.precision))
    _print_cost(options, job.guidance, evaluations, time.perf_counter() - began)
    for kind, output in outputs:
        print(f"{kind:<8} {output.finish()}")


def prepare(run_dir: Path, options: argparse.Namespace, device: torch.device) -> Job:
    """What the options of :func:`liquid_ode.sampling.parser.add_drawing` come to for a run.

    Raises:
        ValueError: an option has a bad value, or no effect.
        CheckpointError: there is no run, or it is broken.
    """
    config, facts = RunDirectory(run_dir).read_record()
    sampler = choose_sampler(options)
    if (
        isinstance(sampler, DDIM)
        and isinstance(sampler.grid, TrailingGrid)
        and options.sigma_max is None
    ):  # as in the grids of its training
        sampler = dataclasses.replace(sampler, steps=ddim_grid(config, options.steps))
    diffusion = load_run(
        run_dir,
        solver=choose_solver(config, options),
        solver_steps=options.solver_steps,
        weights=options.weights,
        device=device,
    )
    names = facts["data"].get("class_names")
    classes = choose_classes(options.class_label, diffusion.num_classes, names)
    warm_start = bool(options.warm_start)
    if warm_start:
        carrying_states(diffusion.model)  # which refuses a model that has none
    guidance = choose_guidance(options, diffusion)
    return Job(config, diffusion, sampler, guidance, classes, names, warm_start)


def choose_solver(config: TrainConfig, options: argparse.Namespace) -> solvers.Solver | None:
    """The solver of the cells that the options name, or None for the run's own.

    Raises:
        ValueError: it is unknown, or an option would have no effect.
    """
    if not config.has_cells:
        refuse(options, _CELL_OPTIONS, f"on the model {config.model!r}, which has no liquid cells")
        return None
    tolerances = {name: getattr(options, name) for name in given(options, *TOLERANCES)}
    changes = {**dict(options.solver_option), **tolerances}
    config.refuse_steps(changes)
    name, settings = config.solver, {**config.solver_options, **changes}
    if options.solver is not None:
        name, settings = options.solver, changes
    solver = solvers.get(name, **settings)
    if not _takes_steps(solver):
        why = f"on the solver {name!r}, which is driven by its tolerances (--rtol)"
        refuse(options, ["solver_steps", "early_steps"], why)
    return solver if options.solver is not None or changes else None


def _takes_steps(solver: solvers.Solver) -> bool:
    """Whether it has a budget of steps; a solver driven by a tolerance has none."""
    try:
        return solver.with_steps(1) is not solver
    except ValueError:  # a learned solver, without coefficients for a single step
        return True


def _record(options: argparse.Namespace, job: Job, weights: str) -> dict[str, Any]:
    """All that the images depend on, but for how many there are."""
    cells = {name: getattr(options, name) for name in given(options, *_CELL_OPTIONS)}
    return {
        "model": job.config.model,
        "weights": weights,
        "sampler": repr(job.sampler),
        "guidance": repr(job.guidance),
        "early_steps": options.early_steps,
        "classes": job.classes,
        "cells": repr(sorted(cells.items())),
        "learned": [_checksum(file) for file in _learned_files(options)],
        "seed": options.seed,
        "precision": options.precision,
    }


def _learned_files(options: argparse.Namespace) -> list[Path]:
    """The files of trained coefficients that the options name."""
    paths = []
    for name in ("solver", "sampler_solver"):
        kind, _, path = (getattr(options, name) or "").partition(":")
        path = path or dict(getattr(options, f"{name}_option")).get("path", "")
        if kind == "learned" and path:
            paths.append(Path(path))
    return paths


def _checksum(path: Path) -> str:
    return f"{zlib.crc32(path.read_bytes()):08x}"


def open_outputs(options: argparse.Namespace, record: dict[str, Any]) -> list[tuple[str, Output]]:
    """Where the images go, each with the word for it.

    Raises:
        ValueError: an output holds images that were made otherwise.
    """
    found: list[tuple[str, Output]] = []
    in_bulk = {**record, "batch_size": options.batch_size}
    if options.separate is not None:
        found.append(("images", FolderOutput(options.separate, in_bulk)))
    if options.npz is not None:
        found.append(("array", ArrayOutput(options.npz, in_bulk, options.n)))
    columns, whole = math.ceil(math.sqrt(options.n)), {**record, "n": options.n}
    default = RunDirectory(options.run_dir).outputs / name_of(options)
    if options.output is not None or not found:
        grid = options.output or free_path(default.with_name(default.name + ".png"), whole)
        found.append(("grid", GridOutput(grid, columns, whole)))
    if options.animate is not None:
        gif = options.animate
        if gif == Path():
            gif = free_path(default.with_name(default.name + ".gif"), whole)
        found.append(("frames", AnimationOutput(gif, whole)))
    return found


def _draw_all(
    options: argparse.Namespace,
    job: Job,
    outputs: Sequence[tuple[str, Output]],
    precision: AbstractContextManager[Any],
) -> Tensor:
    from tqdm import tqdm

    seeds = list(range(options.seed, options.seed + options.n))
    watchers = [output.watch for _, output in outputs]
    with precision, tqdm(total=options.n, unit="image", disable=not sys.stderr.isatty()) as bar:

        def draw(batch: Batch) -> Sampled:
            def callback(progress: Progress) -> None:
                bar.set_postfix_str(f"{progress.evaluations} evaluations")
                for watch in watchers:
                    watch(batch, progress.x0)

            bar.update(batch.first - bar.n)  # past those that are there already
            drawn = job.draw(batch, callback)
            bar.update(len(batch.seeds))
            return drawn

        with torch.no_grad():
            made = [output for _, output in outputs]
            return sample_to(made, seeds, job.labels(options.n), options.batch_size, draw)


def _print_cost(
    options: argparse.Namespace, guidance: Guidance, evaluations: Tensor, seconds: float
) -> None:
    count = len(evaluations)
    if count < options.n:
        print(f"{options.n - count} of {options.n} images were there already")
    if count == 0:
        return
    low, high = (int(value) for value in torch.aminmax(evaluations))
    each = str(low) if low == high else f"{low} to {high}"
    twice = "" if guidance.scale == 1 else ", two calls of the model each where it is guided"
    print(f"{each} evaluations of the denoiser for each image{twice}")
    print(f"{count} images in {seconds:.1f} s ({count / seconds:.1f} images/s)")
