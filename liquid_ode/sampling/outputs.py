"""Where sampled images go, batch by batch: a grid, a folder, an array file; resumed after a kill.

A kill at any moment loses the batch that was being drawn. The same call then goes on: it draws
whole batches as they would have been, and leaves alone what is there, so that no image differs
from one that was never interrupted.
"""

from __future__ import annotations

import io
import json
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from liquid_ode.diffusion import Sampled
from liquid_ode.evaluation import Frames, save_animation, save_grid, save_image
from liquid_ode.evaluation.pictures import as_pixels
from solvers.storage import write_atomically

RECORD = "sampling.json"
NO_LABEL = -1


class Batch(NamedTuple):
    """Which images are drawn together."""

    first: int
    """the index of the first"""
    seeds: list[int]
    labels: list[int] | None
    """None where the images have no class"""

    @property
    def indices(self) -> range:
        return range(self.first, self.first + len(self.seeds))


class Output(ABC):
    """What is done with the images."""

    def holds(self, batch: Batch) -> bool:
        """Whether it has all of a batch already, from an earlier call."""
        return False

    @abstractmethod
    def add(self, batch: Batch, images: Tensor) -> None:
        """Take the images of a batch, ``(B, C, H, W)`` in [-1, 1]."""

    def watch(self, batch: Batch, x0: Tensor) -> None:  # noqa: B027
        """See the estimate of a batch's images after an evaluation, ``(B, C, H, W)``."""

    @abstractmethod
    def finish(self) -> Path:
        """Write what is left to be written; returns where the images are."""


def sample_to(
    outputs: Sequence[Output],
    seeds: Sequence[int],
    labels: Sequence[int] | None,
    batch_size: int,
    draw: Callable[[Batch], Sampled],
) -> Tensor:
    """Draw images batch by batch into the outputs, but for batches that all of them hold.

    Args:
        outputs: where the images go.
        seeds: one for each image.
        labels: one for each image, or None.
        batch_size: how many to draw at a time.
        draw: draws a batch.

    Returns:
        The evaluations of the denoiser for each image that was drawn, long ``(m,)``, m ≤ n.

    Raises:
        ValueError: an output holds images that were made otherwise.
        OSError: an output could not be written.
    """
    evaluations = []
    for first in range(0, len(seeds), batch_size):
        part = slice(first, first + batch_size)
        batch = Batch(first, list(seeds[part]), None if labels is None else list(labels[part]))
        if all(output.holds(batch) for output in outputs):
            continue
        drawn = draw(batch)
        for output in outputs:
            output.add(batch, drawn.images)
        evaluations.append(drawn.evaluations)
    return torch.cat(evaluations) if evaluations else torch.zeros(0, dtype=torch.long)


class GridOutput(Output):
    """One picture of all images, with its record in it.

    Args:
        path: the PNG.
        columns: images in a row.
        record: what made the images.

    Raises:
        ValueError: there is a folder of that name.
    """

    def __init__(self, path: Path, columns: int, record: Mapping[str, Any]) -> None:
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name a file for the grid")
        self.path, self._columns, self._record = path, columns, record
        self._images: list[Tensor] = []

    def add(self, batch: Batch, images: Tensor) -> None:
        self._images.append(images.cpu())

    def finish(self) -> Path:
        text = {RECORD: json.dumps(self._record)}
        return save_grid(torch.cat(self._images), self.path, self._columns, text=text)


class AnimationOutput(Output):
    """How the images of the first batch come about, as a GIF with its record in it.

    Args:
        path: the GIF.
        record: what makes the images.
        most: how many images are shown at most.

    Raises:
        ValueError: there is a folder of that name.
    """

    def __init__(self, path: Path, record: Mapping[str, Any], most: int = 64) -> None:
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name a file for the animation")
        self.path, self._record, self._most = path, record, most
        self._frames = Frames()
        self._shown = 0

    def holds(self, batch: Batch) -> bool:
        return batch.first > 0

    def watch(self, batch: Batch, x0: Tensor) -> None:
        if batch.first == 0:
            shown = x0[: self._most]
            self._shown = len(shown)
            self._frames.add(shown)

    def add(self, batch: Batch, images: Tensor) -> None:
        """Nothing: the last estimate is the image."""

    def finish(self) -> Path:
        columns = math.ceil(math.sqrt(self._shown))
        return save_animation(self._frames, self.path, columns, comment=json.dumps(self._record))


class FolderOutput(Output):
    """A PNG for each image, ``seed_000042.png`` or ``seed_000042_class_3.png``, and the record.

    Args:
        path: the folder; it may hold a part of the images, or fewer, from an earlier call.
        record: what makes the images.

    Raises:
        ValueError: the folder holds images that were made otherwise.
    """

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file: name a folder for the images")
        _agree(path / RECORD, record)

    def holds(self, batch: Batch) -> bool:
        return all(path.exists() for path in self._paths(batch))

    def add(self, batch: Batch, images: Tensor) -> None:
        missing = [
            (image, path)
            for image, path in zip(images, self._paths(batch), strict=True)
            if not path.exists()
        ]
        with ThreadPoolExecutor() as pool:  # each waits for the disk
            list(pool.map(lambda pair: save_image(*pair), missing))

    def finish(self) -> Path:
        return self.path

    def _paths(self, batch: Batch) -> list[Path]:
        labels = [""] * len(batch.seeds)
        if batch.labels is not None:
            labels = [f"_class_{label}" for label in batch.labels]
        names = zip(batch.seeds, labels, strict=True)
        return [self.path / f"seed_{seed:06d}{label}.png" for seed, label in names]


class ArrayOutput(Output):
    """A NumPy file of all images.

    It holds ``images``, uint8 (N, H, W, C); ``seeds``, int64 (N,); ``labels``, int64 (N,), −1 for
    an image without a class; and ``record``, JSON that says what made them. Until it is whole its
    batches are in ``NAME.npz.parts`` beside it.

    Args:
        path: the file, ``.npz``.
        record: what makes the images.
        count: N.

    Raises:
        ValueError: the file, or its parts, are of images that were made otherwise.
    """

    def __init__(self, path: Path, record: Mapping[str, Any], count: int) -> None:
        if path.suffix != ".npz":
            raise ValueError(f"the array file must be named .npz, not {path.name!r}")
        self.path, self._count = path, count
        self._record = json.dumps({**record, "n": count}, sort_keys=True)
        self._parts = path.with_name(path.name + ".parts")
        self._whole = path.exists()
        if self._whole:
            _refuse_other(_read_record(path), self._record, path)
        else:
            _agree(self._parts / RECORD, json.loads(self._record))

    def holds(self, batch: Batch) -> bool:
        return self._whole or self._part(batch).exists()

    def add(self, batch: Batch, images: Tensor) -> None:
        if self.holds(batch):
            return
        labels = batch.labels or [NO_LABEL] * len(batch.seeds)
        pixels = as_pixels(images).numpy()  # (B, H, W, C)
        _write_arrays(self._part(batch), images=pixels, seeds=batch.seeds, labels=labels)

    def finish(self) -> Path:
        if not self._whole:
            parts = [np.load(path) for path in sorted(self._parts.glob("*.npz"))]
            whole = {
                name: np.concatenate([part[name] for part in parts])
                for name in ("images", "seeds", "labels")
            }
            _write_arrays(self.path, **whole, record=self._record)
        shutil.rmtree(self._parts, ignore_errors=True)
        return self.path

    def _part(self, batch: Batch) -> Path:
        return self._parts / f"{batch.first:09d}.npz"


def free_path(path: Path, record: Mapping[str, Any]) -> Path:
    """``path``, or NAME-2, NAME-3, … beside it, the first that holds no picture made otherwise."""
    from PIL import Image

    number, candidate = 1, path
    while candidate.exists():
        try:
            with Image.open(candidate) as picture:
                found = picture.info.get(RECORD) or picture.info.get("comment", b"").decode()
            if json.loads(found) == dict(record):
                break
        except (OSError, ValueError):  # no picture, or none with a record
            pass
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def _write_arrays(path: Path, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getbuffer())


def _read_record(path: Path) -> str:
    try:
        with np.load(path) as arrays:
            return str(arrays["record"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(
            f"{path} exists and is no file of sampled images ({error}): choose another name"
        ) from error


def _agree(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record where there is none yet; else it must be that one."""
    text = json.dumps(record, sort_keys=True)
    if path.exists():
        _refuse_other(path.read_text(), text, path.parent)
    else:
        write_atomically(path, text.encode())


def _refuse_other(found: str, wanted: str, path: Path) -> None:
    """Raise ValueError where images at ``path`` were made otherwise; what differs is named."""
    try:
        before, now = json.loads(found), json.loads(wanted)
        names = sorted({name for name in {*before, *now} if before.get(name) != now.get(name)})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} has a broken record of its images: {error}") from error
    if names:
        changes = ", ".join(f"{n} {before.get(n)!r} (now {now.get(n)!r})" for n in names)
        raise ValueError(f"{path} holds images made with {changes}: choose another name")
