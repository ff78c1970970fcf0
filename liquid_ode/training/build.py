"""The objects that a ``TrainConfig`` names."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import solvers
from liquid_ode.data import ImageSet
from liquid_ode.diffusion import (
    DDIM,
    BatchNormalisedMinSNR,
    CosineSchedule,
    GaussianDiffusion,
    LinearSchedule,
    MinSNR,
    Schedule,
    TrailingGrid,
    UniformWeighting,
)
from liquid_ode.models import create_model
from liquid_ode.models.unet import UShape
from liquid_ode.training.batches import Batches
from liquid_ode.training.config import TrainConfig

if TYPE_CHECKING:
    from liquid_ode.training.machine import Accelerator


def build_model(
    config: TrainConfig, num_classes: int | None, solver: solvers.Solver | None = None
) -> nn.Module:
    """The model of ``config``, its cells driven by ``solver`` where one is given.

    Raises:
        ValueError: the model does not take one of ``model_options``, or not that value.
    """
    if solver is None:
        solver = solvers.get(config.solver, **config.solver_options)
    options = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in _model_options(config).items()
    }
    try:
        model = create_model(config.model, solver=solver, num_classes=num_classes, **options)
    except TypeError as error:
        raise ValueError(
            f"model {config.model!r} could not be made with model_options {options}: {error}"
        ) from error
    if isinstance(model, UShape) and config.progressive:
        for level in (config.progressive, 0):  # the first of which may be too small
            model.grow(level)
    return model


def _model_options(config: TrainConfig) -> dict[str, Any]:
    """The model's options, with those that other settings bring where these are not usual."""
    channels = {} if config.image_channels == 3 else {"image_channels": config.image_channels}
    grows = {"progressive": True} if config.progressive else {}
    return {**config.model_options, **channels, **grows}


def describe_model(config: TrainConfig, num_classes: int | None) -> dict[str, Any]:
    """What a file of weights says of its model: all that must agree for them to mean the same."""
    return {
        "name": config.model,
        "options": {k: v for k, v in _model_options(config).items() if k != "steps"},
        "num_classes": num_classes,
        "schedule": config.schedule,
        "diffusion_steps": config.diffusion_steps,
        "prediction": config.prediction,
    }


def shape_now(config: TrainConfig, model: nn.Module) -> tuple[int, int, int]:
    """(C, H, W) of what ``model`` draws: smaller than the images where it is still growing."""
    channels, height, width = config.image_shape
    smaller = getattr(model, "reduction", 1)
    return channels, height // smaller, width // smaller


def build_schedule(config: TrainConfig) -> Schedule:
    """The noise schedule of ``config``."""
    schedules = {"cosine": CosineSchedule, "linear": LinearSchedule}
    return schedules[config.schedule](config.diffusion_steps)


def build_sampler(config: TrainConfig) -> DDIM:
    """What draws the sample grids of ``config``.

    Raises:
        ValueError: the schedule has not so many steps up to ``sample_sigma_max``.
    """
    grid = ddim_grid(config, config.sample_steps)
    grid.levels(build_schedule(config))  # which raises
    return DDIM(grid, eta=config.sample_eta)


EPSILON_SIGMA_MAX = 40.0


def ddim_grid(config: TrainConfig, steps: int) -> TrailingGrid:
    """DDIM's time steps for the model of ``config``, from ``sample_sigma_max`` where that is set.

    By default those of a model that predicts the noise start at σ = 40, if the schedule has so many
    there. At the σ = 20,291 of the cosine schedule its prediction says nothing about the image, and
    the error, amplified, gives pictures of too much contrast (examples/studies/contrast.py).
    """
    sigma_max = config.sample_sigma_max
    if sigma_max is None and config.prediction == "epsilon":
        near = int((build_schedule(config).sigmas <= EPSILON_SIGMA_MAX).sum())
        sigma_max = EPSILON_SIGMA_MAX if steps <= near else None
    return TrailingGrid(steps, sigma_max=math.inf if sigma_max is None else sigma_max)


def build_diffusion(config: TrainConfig, model: nn.Module) -> GaussianDiffusion:
    """The diffusion of ``config`` around ``model``, on the model's device."""
    weightings: dict[str, Any] = {
        "min-snr": lambda: MinSNR(config.gamma),
        "min-snr-batch": lambda: BatchNormalisedMinSNR(config.gamma),
        "uniform": UniformWeighting,
    }
    diffusion = GaussianDiffusion(
        model,
        schedule=build_schedule(config),
        prediction=config.prediction,
        weighting=weightings[config.weighting](),
    )
    return diffusion.to(next(model.parameters()).device)


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.AdamW:
    """AdamW in its fused form where this device and this version of torch have one."""
    settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    try:
        return torch.optim.AdamW(model.parameters(), fused=True, **settings)
    except (RuntimeError, TypeError):
        return torch.optim.AdamW(model.parameters(), **settings)


def build_batches(config: TrainConfig, data: ImageSet, accelerator: Accelerator) -> Batches:
    """The batches that this process gets of ``data``, on its device."""
    return Batches(
        data,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        seed=config.seed,
        flip=config.flip,
        labelled=config.class_conditional,
        device=accelerator.device,
        channels_last=config.channels_last,
    )


def describe_data(data: ImageSet, *, labelled: bool = False) -> dict[str, Any]:
    """What a run records of its data, so that a resumed run can tell whether it is the same."""
    labels = data.labels if labelled else None
    return {
        "name": data.name,
        "images": len(data),
        "num_classes": data.num_classes,
        "class_names": None if data.class_names is None else list(data.class_names),
        "crc32": data.crc32(),
        "labels_crc32": None if labels is None else f"{zlib.crc32(labels.numpy().data):08x}",
    }


def limited(data: ImageSet, limit: int | None) -> ImageSet:
    """The first ``limit`` images, or all."""
    if limit is None or limit >= len(data):
        return data
    # A copy, so that the images left out can be freed.
    labels = None if data.labels is None else data.labels[:limit].clone()
    return ImageSet(data.images[:limit].clone(), labels, data.class_names, data.name)
