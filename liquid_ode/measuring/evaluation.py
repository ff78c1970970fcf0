"""Several runs, or sets of images, measured alike: the records of ``liquid-ode evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from liquid_ode.data import load_folder
from liquid_ode.data.listing import list_images
from liquid_ode.evaluation import (
    ClassifierFeatures,
    ImageFeatures,
    Neighbours,
    Yardstick,
    denoising_loss,
    nearest,
    plot_neighbours,
    quantised,
)
from liquid_ode.measuring.machine import environment
from liquid_ode.measuring.run_data import OwnData, of_images, of_run
from liquid_ode.sampling import Batch
from liquid_ode.sampling.cli import Job, prepare
from liquid_ode.sampling.options import given, name_of
from liquid_ode.training.machine import autocast
from liquid_ode.training.run_directory import RunDirectory
from solvers.storage import write_atomically

Record = dict[str, Any]
NEIGHBOURS = 4  # drawn beside each sample


@dataclass(frozen=True)
class Plan:
    """What is measured, and how: the same for all that one table compares.

    Attributes:
        drawing: the options of ``liquid-ode sample``: what draws the images of a run.
        n: images to draw of each run; 0 measures the held-out loss alone.
        seed: of the first image, the noise of the loss, and the subsets of the KID.
        held_out: a folder of held-out images, for runs that were trained on a folder.
        training: a folder of training images, for images from files; a run has its own.
        data_root: where CIFAR-10 is cached; by default where each run found it.
        neighbours: samples to draw beside their nearest training images.
        batch_size: images at a time.
        device: where the models are.
        title: of the distance that is measured.
    """

    drawing: argparse.Namespace
    n: int = 10000
    seed: int = 0
    held_out: Path | None = None
    training: Path | None = None
    data_root: str | None = None
    neighbours: int = 8
    batch_size: int = 250
    device: torch.device = torch.device("cpu")
    title: str = ClassifierFeatures.title

    @property
    def label(self) -> str:
        """What made a record, as a part of its file's name."""
        other = "" if self.title == ClassifierFeatures.title else f"{self.title}-".lower()
        return other + name_of(self.drawing).removeprefix("samples-")


def is_run(path: Path) -> bool:
    """Whether a path is that of a run's directory, and not of images."""
    return RunDirectory(path).config.is_file()


def evaluate_all(sources: Sequence[Path], plan: Plan, features: ImageFeatures) -> list[Record]:
    """The records of all sources, each written beside it as well.

    What can be refused is refused before anything is sampled.

    Raises:
        ValueError: sources that cannot be compared, or cannot be measured as planned.
        OSError: a record or a picture could not be written.
    """
    files = {path: read_images(path) for path in sources if not is_run(path)}
    data = {path: own_data(path, plan, files.get(path)) for path in sources}
    kinds = {found.kind: path for path, found in data.items()}
    if len(kinds) > 1:
        (first, one), (second, other), *_ = kinds.items()
        raise ValueError(
            f"{one} is measured on {' '.join(first)} and {other} on {' '.join(second)}: what has "
            "different references cannot stand in one table; evaluate them apart"
        )
    own = next(iter(data.values()))
    for path in filter(is_run, sources):
        prepare(path, plan.drawing, plan.device)  # what is wrong with it is said before any work
    if 0 < plan.n <= features.num_features and any(is_run(path) for path in sources):
        raise ValueError(
            f"{features.title} is a distance in {features.num_features} features and needs more "
            f"than {features.num_features} images, got -n {plan.n}"
        )
    ruler = Ruler(own, features, plan) if plan.n or files else None
    records = []
    for path in sources:
        record: Record = {"source": str(path)}
        images = files.get(path)
        if is_run(path):
            record, images = measure_run(path, plan, own)
        if images is not None and ruler is not None:
            record |= ruler.measure(images, beside(path, "neighbours", plan, "png"), plan)
        record["environment"] = environment(plan.device)
        record["record"] = str(beside(path, "evaluation", plan, "json"))
        save(Path(record["record"]), record)
        records.append(record)
    return records


def own_data(path: Path, plan: Plan, images: Tensor | None) -> OwnData:
    """The images that a source is measured on."""
    if images is not None:
        return of_images(
            (images.shape[2], images.shape[3]), plan.held_out, plan.training, plan.data_root
        )
    if plan.training is not None:
        raise ValueError(f"--training is for images from files: {path} has its own")
    return of_run(path, plan.held_out, plan.data_root)


def beside(path: Path, what: str, plan: Plan, suffix: str) -> Path:
    """Where something that was made of a source is kept, under a name that says how."""
    if is_run(path):
        return RunDirectory(path).outputs / f"{what}-{plan.label}.{suffix}"
    return path.with_name(f"{path.name}.{what}.{suffix}")


def read_images(path: Path) -> Tensor:
    """uint8 ``(N, C, H, W)`` of a folder, or of the array ``images`` (N, H, W, C) of an .npz.

    Raises:
        ValueError: there is neither at ``path``, or the images are not as described.
    """
    if path.is_dir():
        return read_folder(path)
    if path.suffix != ".npz" or not path.is_file():
        raise ValueError(f"{path} is no run, no folder of images and no .npz file")
    try:
        with np.load(path) as arrays:
            pixels = arrays["images"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path} holds no array 'images': {error}") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise ValueError(
            f"'images' of {path} must be uint8 (N, H, W, C) with 1 or 3 channels, got "
            f"{pixels.dtype} of shape {pixels.shape}"
        )
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def read_folder(path: Path) -> Tensor:
    """All images of a folder, of one size: nothing is cropped or scaled before it is measured."""
    from PIL import Image

    sizes = set()
    for file in list_images(path).files:
        with Image.open(path / file) as image:
            sizes.add(image.size)
    if len(sizes) != 1:
        raise ValueError(f"{path} holds images of {len(sizes)} sizes: they must all have one")
    width, height = sizes.pop()
    return load_folder(path, image_size=(height, width)).images


class Ruler:
    """The yardstick of one kind of data, and its training images' features for the neighbours."""

    def __init__(self, own: OwnData, features: ImageFeatures, plan: Plan) -> None:
        self.own = own
        self.yardstick = Yardstick(
            own.held_out, own.training, features=features, device=plan.device, seed=plan.seed
        )
        self._training: Tensor | None = None
        self._usual: float | None = None

    def measure(self, images: Tensor, picture: Path, plan: Plan) -> Record:
        """The scores of images, and the picture of their nearest training images."""
        began = time.perf_counter()
        pixels = quantised(images)
        features = self.yardstick.features(pixels)
        record: Record = self.yardstick.measure(pixels, features).to_dict()
        if plan.neighbours:
            found = self.neighbours(features)
            training = self.own.training.images
            plot_neighbours(pixels, training, found, picture, rows=plan.neighbours)
            record["neighbours"] = str(picture)
            record["neighbour_ratio"] = float(found.distances[:, 0].median()) / self.usual
        record["seconds_measuring"] = round(time.perf_counter() - began, 1)
        return record

    def neighbours(self, features: Tensor) -> Neighbours:
        """The nearest training images, by features."""
        if self._training is None:
            self._training = self.yardstick.features(self.own.training.images)
        k = min(NEIGHBOURS, len(self._training))
        return nearest(features, self._training, k)

    @property
    def usual(self) -> float:
        """The median distance of a held-out image to the nearest training image, by features."""
        if self._usual is None:
            found = self.neighbours(self.yardstick.reference_features)
            self._usual = float(found.distances[:, 0].median())
        return self._usual


def measure_run(path: Path, plan: Plan, own: OwnData) -> tuple[Record, Tensor | None]:
    """What is measured of a run's model: its loss, and what its samples cost; and the samples."""
    job = prepare(path, plan.drawing, plan.device)
    record: Record = {
        "source": str(path),
        "model": job.config.model,
        "weights": plan.drawing.weights,
        "parameters": sum(parameter.numel() for parameter in job.diffusion.parameters()),
        "held_out": own.held_out.name,
        "loss": denoising_loss(job.diffusion, own.held_out, seed=plan.seed).to_dict(),
    }
    if not plan.n:
        return record, None
    began = time.perf_counter()
    with autocast(plan.device, plan.drawing.precision):
        images, evaluations = draw(job, plan)
    return record | {
        "sampler": repr(job.sampler),
        "guidance": repr(job.guidance),
        "cells": cells_of(plan.drawing),
        "evaluations": round(evaluations, 2),
        "seconds_sampling": round(time.perf_counter() - began, 1),
    }, images


def draw(job: Job, plan: Plan) -> tuple[Tensor, float]:
    """Images ``(n, C, H, W)`` as uint8, and the mean evaluations of the denoiser for one."""
    seeds, labels = list(range(plan.seed, plan.seed + plan.n)), job.labels(plan.n)
    images, evaluations = [], []
    with tqdm(total=plan.n, unit="image", disable=not sys.stderr.isatty()) as bar:
        for first in range(0, plan.n, plan.batch_size):
            part = slice(first, first + plan.batch_size)
            batch = Batch(first, seeds[part], None if labels is None else labels[part])
            drawn = job.draw(batch, lambda progress: None)
            images.append(quantised(drawn.images).cpu())
            evaluations.append(drawn.evaluations)
            bar.update(len(batch.seeds))
    return torch.cat(images), float(torch.cat(evaluations).double().mean())


def cells_of(drawing: argparse.Namespace) -> Record:
    """The options of the cells' solver that were given, in place of the run's own."""
    names = given(drawing, "solver", "solver_option", "solver_steps", "rtol", "atol")
    return {name: getattr(drawing, name) for name in names}


def save(path: Path, record: Any) -> None:
    """Write a record, or several, as JSON."""
    write_atomically(path, f"{json.dumps(record, indent=2)}\n".encode())
