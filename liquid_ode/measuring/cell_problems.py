"""The initial value problems that the liquid cells of a trained run solve."""

from __future__ import annotations

from pathlib import Path

import torch

import solvers
from liquid_ode.data import load_images, to_model_range
from liquid_ode.evaluation.noisy_images import NoisyImages
from liquid_ode.training.config import TrainConfig
from liquid_ode.training.loading import load_config, load_run


def cell_problems(
    run_dir: str | Path,
    *,
    images: int = 256,
    rows: int = 256,
    seed: int = 0,
    data_root: str | Path | None = None,
    device: str | torch.device | None = None,
) -> tuple[list[solvers.Problem], list[solvers.Problem]]:
    """What the cells are asked to solve when the model denoises images, for two sets of images.

    The first is for :func:`solvers.train_solver` to train on, from the run's own images; the
    second, to measure on, from images that it never saw: the test images of CIFAR-10. Where the
    run has a folder of images, the second set is from the last quarter of it.

    Args:
        run_dir: the run directory.
        images: how many images, at time steps drawn at random.
        rows: the most states to keep of each cell, drawn at random.
        seed: of all that is drawn.
        data_root: where the data set is cached; the run's own cache if None.
        device: where to compute; the best there is if None.

    Raises:
        ValueError: a number is below 1, or the model has no liquid cells.
        CheckpointError: there is no run, or its weights are missing, broken or of another model.
        DataError: the images cannot be had.
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, not {images}")
    config = load_config(run_dir)
    own = solvers.get(config.solver, **config.solver_options)
    found = []
    for drawn in _draw(config, images, seed, config.data_root if data_root is None else data_root):
        recorder = solvers.Recorder(own, rows=rows, seed=seed)
        diffusion = load_run(run_dir, solver=recorder, device=device)
        with torch.no_grad():
            drawn.part(slice(None), diffusion.device).error(diffusion)
        if not recorder.problems:
            raise ValueError(f"model {config.model!r} of {run_dir} has no liquid cells")
        found.append(recorder.problems)
    return found[0], found[1]


def _draw(config: TrainConfig, count: int, seed: int, root: str | Path | None) -> list[NoisyImages]:
    """Noisy images of the run, and others."""
    data = load_images(
        config.data, root, image_size=config.image_size, image_channels=config.image_channels
    )
    if config.data == "cifar10":
        test = load_images(config.data, root, split="test")
        parts = [(data, torch.arange(len(data))), (test, torch.arange(len(test)))]
    else:
        cut = len(data) - max(len(data) // 4, 1)
        parts = [(data, places) for places in torch.arange(len(data)).tensor_split([cut])]
    drawn = []
    for number, (source, places) in enumerate(parts, seed):
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(number))
        which = places[order[:count]]
        conditional = config.class_conditional and source.labels is not None
        labels = source.labels[which] if conditional and source.labels is not None else None
        clean = to_model_range(source.images[which])
        drawn.append(NoisyImages.draw(clean, config.diffusion_steps, number, labels))
    return drawn
