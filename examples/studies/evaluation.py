"""Several runs, or sets of images, measured alike: the records behind ``examples/evaluate.py``."""

from __future__ import annotations

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

from liquid_ode.data import ImageSet, load_folder
from liquid_ode.data.listing import list_images
from liquid_ode.diffusion import GaussianDiffusion, Guidance, Sampled, Sampler
from liquid_ode.evaluation import (
    ImageFeatures,
    Neighbours,
    Yardstick,
    denoising_loss,
    nearest,
    plot_neighbours,
    quantised,
)
from liquid_ode.training import load_config, load_run
from liquid_ode.training.machine import autocast, resolve_device, resolve_precision
from solvers.storage import write_atomically
from studies.machine import environment
from studies.run_data import OwnData, classes_in_turn, of_images, of_run

Record = dict[str, Any]
NEIGHBOURS = 4  # drawn beside each sample


@dataclass(frozen=True)
class Plan:
    """What is measured, and how: the same for all that one table compares.

    Attributes:
        sampler: draws the images of a run.
        name: of the sampler and its settings, in the names of files.
        n: images to draw of each run; 0 measures the held-out loss alone.
        seed: of the first image, the noise of the loss, and the subsets of the KID.
        guidance: strength, of a class-conditional run.
        weights: which of a run's weights.
        held_out: a folder of held-out images, for runs that were trained on a folder.
        training: a folder of training images, for images from files; a run has its own.
        data_root: where CIFAR-10 is cached; by default where each run found it.
        neighbours: samples to draw beside their nearest training images.
        batch_size: images at a time.
        device, precision: of the model.
    """

    sampler: Sampler
    name: str
    n: int = 10000
    seed: int = 0
    guidance: Guidance = Guidance(1.0)
    weights: str = "ema"
    held_out: Path | None = None
    training: Path | None = None
    data_root: str | None = None
    neighbours: int = 8
    batch_size: int = 250
    device: str | None = None
    precision: str = "auto"

    @property
    def label(self) -> str:
        """What made a record, as a part of its file's name."""
        parts = [self.name, f"n{self.n}", f"seed{self.seed}"]
        if self.weights != "ema":
            parts.insert(0, self.weights)
        return "-".join(parts)


def is_run(path: Path) -> bool:
    """Whether a path is that of a run's directory, and not of images."""
    return (path / "config.json").is_file()


def evaluate_all(sources: Sequence[Path], plan: Plan, features: ImageFeatures) -> list[Record]:
    """The records of all sources, each written beside it as well.

    What can be refused is refused before anything is sampled.

    Raises:
        ValueError: sources that cannot be compared, or cannot be measured as planned.
        OSError: a record or a picture could not be written.
    """
    given = {path: read_images(path) for path in sources if not is_run(path)}
    data = {path: own_data(path, plan, given.get(path)) for path in sources}
    kinds = {found.kind: path for path, found in data.items()}
    if len(kinds) > 1:
        (first, one), (second, other), *_ = kinds.items()
        raise ValueError(
            f"{one} is measured on {' '.join(first)} and {other} on {' '.join(second)}: what has "
            "different references cannot stand in one table; evaluate them apart"
        )
    own = next(iter(data.values()))
    if 0 < plan.n <= features.num_features and any(is_run(path) for path in sources):
        raise ValueError(
            f"{features.title} is a distance in {features.num_features} features and needs more "
            f"than {features.num_features} images, got -n {plan.n}"
        )
    ruler = Ruler(own, features, plan) if plan.n or given else None
    records = []
    for path in sources:
        record: Record = {"source": str(path)}
        images = given.get(path)
        if is_run(path):
            record, images = measure_run(path, plan, own)
        if images is not None and ruler is not None:
            record |= ruler.measure(images, beside(path, "neighbours", plan, "png"), plan)
        record["environment"] = environment(resolve_device(plan.device))
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
        return path / f"{what}-{plan.label}.{suffix}"
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
        device = resolve_device(plan.device)
        self.own = own
        self.yardstick = Yardstick(
            own.held_out, own.training, features=features, device=device, seed=plan.seed
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
    device = resolve_device(plan.device)
    config = load_config(path)
    diffusion = load_run(path, weights=plan.weights, device=device)
    record: Record = {
        "source": str(path),
        "model": config.model,
        "weights": plan.weights,
        "parameters": sum(parameter.numel() for parameter in diffusion.parameters()),
        "held_out": own.held_out.name,
        "loss": denoising_loss(diffusion, own.held_out, seed=plan.seed).to_dict(),
    }
    if not plan.n:
        return record, None
    began = time.perf_counter()
    with autocast(device, resolve_precision(plan.precision, device)):
        drawn = draw(diffusion, plan, own.training)
    record |= {
        "sampler": repr(plan.sampler),
        "guidance": plan.guidance.scale,
        "evaluations": round(float(drawn.evaluations.double().mean()), 2),
        "seconds_sampling": round(time.perf_counter() - began, 1),
    }
    return record, drawn.images.cpu()


def draw(diffusion: GaussianDiffusion, plan: Plan, like: ImageSet) -> Sampled:
    """Images ``(n, C, H, W)`` in [-1, 1], of the classes in turn where there are classes."""
    labels = classes_in_turn(plan.n, diffusion.num_classes)
    with tqdm(total=plan.n, unit="image", disable=not sys.stderr.isatty()) as bar:
        return plan.sampler.draw(
            diffusion,
            plan.n,
            seeds=plan.seed,
            class_labels=labels,
            guidance=plan.guidance,
            batch_size=plan.batch_size,
            image_shape=like.image_shape,
            callback=lambda progress: bar.update(progress.first_image - bar.n) and None,
        )


def save(path: Path, record: Any) -> None:
    """Write a record, or several, as JSON."""
    write_atomically(path, f"{json.dumps(record, indent=2)}\n".encode())
