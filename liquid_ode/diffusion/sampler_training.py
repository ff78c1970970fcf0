"""Training a sampler of few evaluations against one of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liquid_ode.diffusion.checks import check_count
from liquid_ode.diffusion.ddim import DDIM
from liquid_ode.diffusion.gaussian import GaussianDiffusion
from liquid_ode.diffusion.grids import KarrasGrid
from liquid_ode.diffusion.guidance import Guidance
from liquid_ode.diffusion.learned_sampler import LearnedSampler, describe
from liquid_ode.diffusion.noise import seeded_noise
from liquid_ode.diffusion.sampling import (
    GuidedDenoiser,
    Sampler,
    classes_in_turn,
    evaluation_mode,
    resolve_image_shape,
)

TRAINING_SEEDS = 2**40  # the first of them: far from the seeds that images are sampled with


class SamplerProgress(NamedTuple):
    """Where the training of a sampler stands; given to its callback after each step."""

    step: int
    """steps so far"""
    steps: int
    """steps in all"""
    error: float
    """root mean square of the pixels' error in this batch"""


class _Pairs(NamedTuple):
    """Noise, and the images that the teacher makes of it."""

    noise: Tensor
    images: Tensor
    labels: Tensor | None


def train_sampler(
    diffusion: GaussianDiffusion,
    evaluations: int = 10,
    *,
    teacher: Sampler = DDIM(50),
    images: int = 512,
    held_out: int = 128,
    steps: int = 400,
    batch_size: int = 16,
    lr: float = 0.003,
    guidance: Guidance = Guidance(),
    image_shape: Sequence[int] | None = None,
    seed: int = 0,
    callback: Callable[[SamplerProgress], None] | None = None,
) -> LearnedSampler:
    """Fit a sampler of few evaluations to what a sampler of many makes of the same noise.

    The numbers of :class:`LearnedSampler` minimise the mean squared error of the pixels,
    through all the evaluations, by Adam with a rate that falls to 0 along a cosine. Of the states
    that are met on the way the best on the held-out noise is kept, the untrained one among them.

    Args:
        diffusion: the trained model, whose weights stay as they are.
        evaluations: N, at least 2.
        teacher: any deterministic sampler that starts where noise has drowned the image. What
            comes out is as good as the teacher at best, and the most exact one need not have the
            best images: of a small model a coarser sampler's may be nearer to the data.
        images: how many noises to train on; a labelled model's classes take turns.
        held_out: how many others to measure on.
        steps: of Adam.
        batch_size: noises a step, and images at a time.
        lr: the highest rate.
        guidance: of teacher and pupil alike. A sampler is meant for the guidance it was trained
            with.
        image_shape: (C, H, W); see :meth:`Sampler.sample`.
        seed: of the noises and their order.
        callback: called with a :class:`SamplerProgress` after each step.

    Returns:
        the sampler, on the CPU. Its ``errors`` are the root mean square errors on the held-out
        noise, ``trained`` and ``untrained``, and ``images``, the standard deviation of the
        teacher's pixels, to compare them with.

    Raises:
        ValueError: where a number is not as described, or the model gives NaN.

    References: see :class:`LearnedSampler`.
    """
    numbers = {"images": images, "held_out": held_out, "steps": steps, "batch_size": batch_size}
    for name, value in numbers.items():
        check_count(name, value)
    sigma_max = min(80.0, float(diffusion.schedule.sigmas[-1]))
    grid = KarrasGrid(evaluations, sigma_max=sigma_max, sigma_min=0.02)
    sigmas = [level.sigma for level in grid.levels(diffusion.schedule)]
    sampler = LearnedSampler(sigmas, description=describe(diffusion)).to(diffusion.device)
    first = TRAINING_SEEDS + seed * (images + held_out)
    shape = resolve_image_shape(diffusion, 1, image_shape, None)

    def taught(start: int, count: int) -> _Pairs:
        seeds = range(start, start + count)
        return _taught(diffusion, teacher, seeds, shape, batch_size, guidance)

    training, measured = taught(first, images), taught(first + images, held_out)
    with _frozen(diffusion):
        untrained = _error(sampler, diffusion, measured, batch_size, guidance)
        best, best_error = _copy(sampler), untrained
        for step, error in _descend(
            sampler, diffusion, training, steps, batch_size, lr, guidance, seed
        ):
            if callback is not None:
                callback(SamplerProgress(step, steps, error))
            if step % max(steps // 8, 1) == 0 or step == steps:
                found = _error(sampler, diffusion, measured, batch_size, guidance)
                if found < best_error:
                    best, best_error = _copy(sampler), found
    sampler.load_state_dict(best)
    sampler.errors = {
        "trained": best_error,
        "untrained": untrained,
        "images": float(measured.images.std()),
    }
    return sampler.requires_grad_(False).cpu()


def _taught(
    diffusion: GaussianDiffusion,
    teacher: Sampler,
    seeds: Sequence[int],
    shape: Sequence[int],
    batch_size: int,
    guidance: Guidance,
) -> _Pairs:
    count = len(seeds)
    labels = classes_in_turn(count, diffusion.num_classes)
    noise = seeded_noise(seeds, shape)
    images = teacher.sample(
        diffusion,
        count,
        seeds=seeds,
        class_labels=labels,
        guidance=guidance,
        batch_size=4 * batch_size,
        initial_noise=noise,
    )
    return _Pairs(noise.to(diffusion.device), images, labels)


@contextmanager
def _frozen(diffusion: GaussianDiffusion) -> Iterator[None]:
    """Within it, the model is in evaluation mode and its weights ask for no gradient."""
    asking = [p for p in diffusion.parameters() if p.requires_grad]
    with evaluation_mode(diffusion):
        try:
            for parameter in asking:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in asking:
                parameter.requires_grad_(True)


def _denoiser(
    diffusion: GaussianDiffusion, pairs: _Pairs, rows: Tensor, guidance: Guidance
) -> GuidedDenoiser:
    labels = None if pairs.labels is None else pairs.labels[rows].to(diffusion.device)
    return GuidedDenoiser(diffusion, labels, guidance, lambda evaluations, x0: None)


@torch.no_grad()
def _error(
    sampler: LearnedSampler,
    diffusion: GaussianDiffusion,
    pairs: _Pairs,
    batch_size: int,
    guidance: Guidance,
) -> float:
    """The root mean square error of the pixels."""
    total = 0.0
    for rows in torch.arange(len(pairs.noise)).split(4 * batch_size):
        made = sampler.images(_denoiser(diffusion, pairs, rows, guidance), pairs.noise[rows])
        total += float((made - pairs.images[rows]).square().sum())
    error = (total / pairs.images.numel()) ** 0.5
    if not error < torch.inf:
        raise ValueError("the images hold NaN or infinity: look for NaN in the model's weights")
    return error


def _descend(
    sampler: LearnedSampler,
    diffusion: GaussianDiffusion,
    pairs: _Pairs,
    steps: int,
    batch_size: int,
    lr: float,
    guidance: Guidance,
    seed: int,
) -> Iterator[tuple[int, float]]:
    """Steps of Adam: after each its number and the error of its batch."""
    sampler.requires_grad_(True)
    optimizer = torch.optim.Adam(sampler.parameters(), lr=lr, betas=(0.9, 0.99))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pairs.noise), generator=generator)
    for step in range(1, steps + 1):
        if len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(pairs.noise), generator=generator)])
        rows, order = order[:batch_size], order[batch_size:]
        made = sampler.images(_denoiser(diffusion, pairs, rows, guidance), pairs.noise[rows])
        loss = (made - pairs.images[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(sampler.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        yield step, float(loss.detach()) ** 0.5


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
