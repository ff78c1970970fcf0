"""Which images each step sees, and which random numbers: functions of the step alone.

Nothing here has a state that goes on from step to step, so a resumed run draws what an
uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.data import ImageSet, random_flip, to_model_range


def derived_seed(purpose: str, *numbers: int) -> int:
    """A 63-bit seed of its own for each purpose and each tuple of numbers."""
    text = " ".join([purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Batch:
    """The share of one process in a pass, and what is drawn for all of the pass."""

    images: Tensor  # (B, C, H, W) in [-1, 1]
    labels: Tensor | None  # (B,)
    generator: torch.Generator  # for the noise levels and the noise of the whole pass
    rows: tuple[int, int]  # the first image's place in the pass, and the images of the pass


class Batches:
    """The batches of every optimizer step, for one of ``processes`` processes.

    The images stay in memory as bytes and are indexed directly. Each epoch is a new permutation;
    images that fill no whole optimizer step at its end are left out of that epoch. What an image
    meets depends on its place in the step, and not on the process that it falls to: any number of
    processes takes the same steps, up to rounding. (But for dropout inside a model, whose masks
    are those of the process's share, and not of the whole pass.)

    Args:
        data: the images.
        batch_size: images of one pass, which the processes share in equal parts.
        accumulation: passes of one optimizer step.

    Raises:
        ValueError: there are fewer images than one optimizer step takes, or no labels to give, or
            the processes cannot share a pass equally.
    """

    def __init__(
        self,
        data: ImageSet,
        *,
        batch_size: int,
        accumulation: int = 1,
        process: int = 0,
        processes: int = 1,
        seed: int = 0,
        flip: bool = False,
        labelled: bool = False,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
    ) -> None:
        if batch_size % processes:
            raise ValueError(
                f"batch_size counts the images of all processes together, and {processes} "
                f"processes cannot share {batch_size} equally: make it a multiple of {processes}"
            )
        self.step_images = batch_size * accumulation
        if len(data) < self.step_images:
            raise ValueError(
                f"the data has {len(data)} images, fewer than the {self.step_images} of one "
                f"optimizer step (batch_size {batch_size} x gradient_accumulation "
                f"{accumulation}); lower batch_size or give more images"
            )
        if labelled and data.labels is None:
            raise ValueError("class_conditional needs labels, and this data has none")
        self.steps_per_epoch = len(data) // self.step_images
        self._data = data
        self._batch_size = batch_size
        self._accumulation = accumulation
        share = batch_size // processes
        self._rows = slice(process * share, (process + 1) * share)
        self._seed = seed
        self._flip = flip
        self._labelled = labelled
        self._device = torch.device(device)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        self._flips = torch.Generator()
        self._noise = torch.Generator(self._device)

    def step(self, step: int) -> Iterator[Batch]:
        """The batches of optimizer step ``step``, counted from 0: one for each accumulated pass.

        Torch's global generators are seeded too before each, alike in all processes: what a model
        draws for all of a pass, such as a number of steps, is the same in each.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            shuffle = torch.Generator().manual_seed(derived_seed("shuffle", self._seed, epoch))
            self._order = (epoch, torch.randperm(len(self._data), generator=shuffle))
        chosen = self._order[1][position * self.step_images :][: self.step_images]
        for index in range(self._accumulation):
            numbers = (self._seed, step * self._accumulation + index)
            self._seed_global(derived_seed("model", *numbers, 0))
            whole = chosen[index * self._batch_size :][: self._batch_size]
            yield self._batch(whole[self._rows], (*numbers, 0))

    def _batch(self, chosen: Tensor, numbers: tuple[int, int, int]) -> Batch:
        images = self._data.images[chosen]
        if self._flip:
            flips = self._flips.manual_seed(derived_seed("flip", *numbers))
            images = random_flip(images, flips, rows=(self._rows.start, self._batch_size))
        images = to_model_range(images.to(self._device))
        labels = None
        if self._labelled and self._data.labels is not None:
            labels = self._data.labels[chosen].to(self._device)
        noise = self._noise.manual_seed(derived_seed("noise", *numbers))
        images = images.contiguous(memory_format=self._format)
        return Batch(images, labels, noise, (self._rows.start, self._batch_size))

    def _seed_global(self, seed: int) -> None:
        # torch.manual_seed would also queue the seeding of devices that are not in use, slowly.
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self._device.type == "mps":
            torch.mps.manual_seed(seed)
