"""Models by name."""

from __future__ import annotations

import inspect
from typing import Any

from liquid_ode.arguments import did_you_mean
from liquid_ode.models.denoiser import Denoiser
from liquid_ode.models.improved import ImprovedLiquid
from liquid_ode.models.inspired import InspiredConv
from liquid_ode.models.liquid_unet import LiquidUNet
from liquid_ode.models.original import OriginalLiquid
from liquid_ode.models.unet import UNet
from solvers import Euler, Solver

_MODELS: dict[str, type[Denoiser]] = {
    "improved": ImprovedLiquid,
    "original": OriginalLiquid,
    "inspired": InspiredConv,
    "unet": UNet,
    "liquid_unet": LiquidUNet,
}


def model_names() -> list[str]:
    """The names that :func:`create_model` takes."""
    return list(_MODELS)


def model_options(name: str) -> dict[str, Any]:
    """The options of a model and their defaults, besides ``solver`` and ``num_classes``.

    Raises:
        ValueError: where the name is unknown.
    """
    parameters = inspect.signature(_model(name).__init__).parameters
    return {
        key: parameter.default
        for key, parameter in parameters.items()
        if key not in {"self", "solver", "num_classes"}
    }


def create_model(
    name: str, *, solver: Solver = Euler(), num_classes: int | None = None, **overrides: Any
) -> Denoiser:
    """A model, called as ``model(x, t, class_labels=None)``; see :class:`Denoiser`.

    Args:
        name: one of :func:`model_names`.
        solver: drives the liquid cells, with the number of steps of each scale (the option
            ``steps``) in place of its own; the convolutional models have no cells.
        num_classes: number of classes; None for an unconditional model.
        overrides: options of that model, see :func:`model_options`.

    Raises:
        ValueError: where the name, an option or its value is not one the model takes.
    """
    known = model_options(name)
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(
            f"model {name!r} takes no option {', '.join(map(repr, unknown))}; "
            f"it takes {', '.join(f'{key}={value}' for key, value in known.items())}"
        )
    if not isinstance(solver, Solver):
        raise ValueError(f"solver must be a solver, such as solvers.get('heun'), not {solver!r}")
    build: Any = _model(name)
    model: Denoiser = build(solver=solver, num_classes=num_classes, **overrides)
    return model


def _model(name: str) -> type[Denoiser]:
    if name not in _MODELS:
        raise ValueError(
            f"unknown model {name!r}{did_you_mean(name, _MODELS)}; choose one of "
            f"{', '.join(model_names())}"
        )
    return _MODELS[name]
