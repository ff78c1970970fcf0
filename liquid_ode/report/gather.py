"""What a report says of a run: all that its directory holds, and what its model draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liquid_ode.diffusion import DDIM, GaussianDiffusion, classes_in_turn
from liquid_ode.evaluation import read_measurements, read_metrics
from liquid_ode.report.numbers import short
from liquid_ode.report.time_constants import TimeConstants, time_constants
from liquid_ode.training import TrainConfig, load_run
from liquid_ode.training.run_directory import RunDirectory

SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 80.0)
FILM_IMAGES, FILM_FRAMES = 8, 24


@dataclass(frozen=True)
class Film:
    """The estimates of clean images while they are sampled.

    Attributes:
        frames: ``(F, N, C, H, W)`` in [-1, 1].
        labels: what to say of each frame.
    """

    frames: Tensor
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """What a run's model draws.

    Attributes:
        sampler: what sampled it, in words.
        images: ``(n, C, H, W)`` in [-1, 1], seeds from ``seed`` on.
        film: how the first of them came about.
        tau: of its liquid cells, None where there are none.
    """

    sampler: str
    seed: int
    images: Tensor
    film: Film
    tau: TimeConstants | None


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        path: its directory.
        name: what it is called in the report.
        config: its settings.
        record: all of its config.json.
        metrics: the lines of its metrics.
        measurements: those of what was measured meanwhile.
        evaluations: the records of ``liquid-ode evaluate`` in its directory.
        grids: its sample grids, by the number of their epoch.
        drawn: what its model draws; None where it was not asked for.
    """

    path: Path
    name: str
    config: TrainConfig
    record: Mapping[str, Any]
    metrics: list[dict[str, Any]]
    measurements: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    grids: dict[int, Path] = field(default_factory=dict)
    drawn: Drawn | None = None

    @property
    def images_per_step(self) -> int:
        return self.config.batch_size * self.config.gradient_accumulation


def read_run(path: str | Path) -> Run:
    """A run as its directory has it, without its model.

    Raises:
        CheckpointError: there is no run, or its record is broken.
    """
    run = RunDirectory(path)
    config, record = run.read_record()
    metrics, measured = (
        read(run.metrics) if run.metrics.exists() else []
        for read in (read_metrics, read_measurements)
    )
    grids = {
        int(file.stem.removeprefix("epoch_")): file
        for file in sorted((run.path / "samples").glob("epoch_*.png"))
        if file.stem.removeprefix("epoch_").isdecimal()
    }
    return Run(
        path=run.path,
        name=run.path.resolve().name,
        config=config,
        record=record,
        metrics=metrics,
        measurements=measured,
        evaluations=_evaluations(run),
        grids=grids,
    )


def named_apart(runs: list[Run]) -> list[Run]:
    """The runs, those of one name called by more of their paths."""
    names = [run.name for run in runs]
    return [replace(run, name=str(run.path)) if names.count(run.name) > 1 else run for run in runs]


def _evaluations(run: RunDirectory) -> list[dict[str, Any]]:
    """The records of evaluations, the oldest first; what cannot be read is left out."""
    found = []
    files = [file for place in {run.path, run.outputs} for file in place.glob("evaluation*.json")]
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        try:
            record = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        found += record if isinstance(record, list) else [record]
    return [record for record in found if isinstance(record, dict)]


def draw(
    run: Run,
    *,
    n: int,
    steps: int,
    seed: int,
    weights: str = "ema",
    device: str | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Run:
    """The run with what its model draws: n images of seeds ``seed`` to ``seed + n − 1`` by DDIM.

    Classes are taken in turn. τ is shown on the images that were drawn, so that no data is needed.

    Raises:
        CheckpointError: its weights are missing or broken.
        ValueError: an option is out of range.
    """
    diffusion = load_run(run.path, weights=weights, device=device)
    labels = classes_in_turn(n, diffusion.num_classes)
    steps = min(steps, run.config.diffusion_steps)
    sampler, frames = DDIM(steps), []

    def keep(found: Any) -> None:
        frames.append(found.x0[:FILM_IMAGES].cpu())
        progress()

    images = sampler.sample(
        diffusion,
        n,
        seeds=seed,
        class_labels=labels,
        image_shape=run.config.image_shape,
        callback=keep,
    )
    sigmas = [level.sigma for level in sampler.grid.levels(diffusion.schedule)]
    drawn = Drawn(
        f"DDIM, {steps} steps",
        seed,
        images.cpu(),
        _film(frames, sigmas),
        _time_constants(diffusion, images[:FILM_IMAGES], labels),
    )
    return replace(run, drawn=drawn)


def _film(frames: list[Tensor], sigmas: list[float]) -> Film:
    """Some of the frames at equal strides, the first and the last among them."""
    last = len(frames) - 1
    count = min(FILM_FRAMES, len(frames))
    chosen = [round(index * last / max(1, count - 1)) for index in range(count)]
    labels = [f"step {index + 1}, σ {short(sigmas[index])}" for index in chosen]
    return Film(torch.stack([frames[index] for index in chosen]), tuple(labels))


def _time_constants(
    diffusion: GaussianDiffusion, images: Tensor, labels: Tensor | None
) -> TimeConstants | None:
    low, high = float(diffusion.schedule.sigmas[0]), float(diffusion.schedule.sigmas[-1])
    sigmas = [sigma for sigma in SIGMAS if low <= sigma <= high]
    if labels is not None:
        labels = labels[: len(images)].to(images.device)
    return time_constants(diffusion, images, sigmas, class_labels=labels) if sigmas else None
