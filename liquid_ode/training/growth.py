"""Progressive training: on how small images each step of a run works."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class Growth(NamedTuple):
    """Where a growing model stands."""

    level: int
    """images are halved so many times"""
    fade: float
    """in (0, 1]: how much the newest stage of the model counts"""


def growth_at(step: int, total: int, *, halvings: int, share: float) -> Growth:
    """Where a run stands in step ``step`` of ``total``, counted from 0.

    A share of the steps goes to images halved ``halvings`` times, the same to those halved once
    less, and so on; the rest to whole images. The stages that an image size brings fade in,
    linearly, over as many steps as half of that share has.

    Reference: Karras et al. 2018, Progressive growing of GANs, section 2 and appendix A.
    """
    of_each = share * total
    stage = min(halvings, int(step / of_each)) if of_each > 0 else halvings
    if stage == 0:
        return Growth(halvings, 1.0)
    into = (step + 1 - stage * of_each) / max(of_each / 2, 1)
    return Growth(halvings - stage, min(1.0, max(into, 1 / total)))


def halved(images: Tensor, times: int) -> Tensor:
    """Images ``(B, C, H, W)`` in [-1, 1] at 1/2^times of their size, by means of squares."""
    return F.avg_pool2d(images, 2**times) if times else images
