"""A trained run, back as a diffusion to sample from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import solvers
from liquid_ode.diffusion import GaussianDiffusion
from liquid_ode.trained import trained_run
from liquid_ode.training.build import build_diffusion, build_model, describe_model
from liquid_ode.training.checkpoint import check_description, check_fit
from liquid_ode.training.config import TrainConfig, is_object
from liquid_ode.training.machine import resolve_device
from liquid_ode.training.objects import Objects
from liquid_ode.training.run_directory import RunDirectory
from liquid_ode.training.weights import read_weights


def load_config(run_dir: str | Path) -> TrainConfig:
    """The settings of a run.

    Raises:
        CheckpointError: there is no run in the directory, or its record is broken.
    """
    return RunDirectory(run_dir).read_record()[0]


def load_run(
    run_dir: str | Path,
    *,
    solver: str | solvers.Solver | None = None,
    solver_steps: int | Sequence[int] | None = None,
    weights: str = "ema",
    model: nn.Module | None = None,
    device: str | torch.device | None = None,
) -> GaussianDiffusion:
    """The trained model of a run, in evaluation mode, with another solver if one is given.

    Args:
        run_dir: the run directory, or ``pretrained:NAME``.
        solver: drives the cells in place of the run's own: a solver, or the name of one. Its
            number of steps is that of each scale: see ``solver_steps``.
        solver_steps: solver steps of the model's cells in place of the run's own: its option
            ``steps``, one number for all or one for each scale or resolution.
        weights: "ema", the average of the weights, "model", the weights of the last step, or
            "best", the average after the epoch that was measured best (``evaluate_every``); or
            "ema-LENGTH", the average over that part of the training (0.05, say): one that the run
            has made (``ema_lengths``), or made now of two of those and the run's snapshots.
        model: the network that the run was made with, where ``train`` was given one: it takes the
            weights, and comes back in the diffusion.
        device: where to put it; the best there is if None.

    Raises:
        CheckpointError: there is no run, or its weights are missing, broken or of another model.
        ValueError: an unknown solver, kind of weights or device.
    """
    run = RunDirectory(run_dir)
    config, record = run.read_record()
    if solver_steps is not None:
        if model is not None:
            raise ValueError(
                "solver_steps has no effect on a model that is given: make it with those steps"
            )
        steps = solver_steps if isinstance(solver_steps, int) else list(solver_steps)
        options = {**config.model_options, "steps": steps}
        config = dataclasses.replace(config, model_options=options)
    num_classes = record["data"]["num_classes"] if config.class_conditional else None
    chosen = solvers.get(solver) if isinstance(solver, str) else solver
    if is_object(config.data):  # the images are not needed
        config = dataclasses.replace(config, data="cifar10")
    run_solver = config.solver
    replaced = chosen if is_object(run_solver) or model is not None else None
    config = Objects(model=model, solver=replaced).named(config)
    if model is None:
        model = build_model(config, num_classes, chosen)

    what = f"{weights} of {run.title}"
    header, tensors = read_weights(run, weights)
    whose = f"model {config.model!r} of {run.config}"
    check_description(header.get("model"), describe_model(config, num_classes), what, whose)
    state = model.state_dict()
    if chosen is not None and not (is_object(run_solver) and config.solver == run_solver):
        # A solver may have coefficients of its own: those of the run's solver do not fit another,
        # and those of the given one are to stay as they are.
        state = {name: value for name, value in state.items() if not _of_solver(name)}
        tensors = {name: value for name, value in tensors.items() if not _of_solver(name)}
    check_fit(state, tensors, what, whose)
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(tensors[name])
    where = device if isinstance(device, torch.device) else resolve_device(device)
    model = model.to(where)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return build_diffusion(config, model).eval()


def load_pretrained(
    name: str,
    *,
    solver: str | solvers.Solver | None = None,
    solver_steps: int | Sequence[int] | None = None,
    device: str | torch.device | None = None,
) -> GaussianDiffusion:
    """A trained model that comes with the package, in evaluation mode: nothing is fetched.

    >>> import liquid_ode
    >>> liquid_ode.load_pretrained("unet", device="cpu").schedule
    CosineSchedule(num_steps=1000, s=0.008, max_beta=0.999)

    Args:
        name: ``improved``, ``original``, ``unet`` or ``liquid_unet``; or one of
            :func:`liquid_ode.trained.trained_runs`. ``liquid-ode pretrained`` lists them with what
            they measure and the commands that made them.
        solver: drives the cells in place of the run's own; as of :func:`load_run`.
        solver_steps: solver steps of the cells in place of the run's own.
        device: where to put it; the best there is if None.

    Raises:
        ValueError: there is no such run, or an unknown solver or device.
        CheckpointError: the weights are not those that were measured: their SHA-256 is another.
    """
    return load_run(trained_run(name), solver=solver, solver_steps=solver_steps, device=device)


def _of_solver(name: str) -> bool:
    return "solver" in name.split(".")
