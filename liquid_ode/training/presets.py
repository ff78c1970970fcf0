"""Named sets of training settings: what each changes from the defaults of ``TrainConfig``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The specification's main system: the defaults of TrainConfig are this preset.
    "improved": {},
    # The specification's pure liquid system: 400 linear steps and the plain mean squared error.
    "original": {
        "model": "original",
        "schedule": "linear",
        "diffusion_steps": 400,
        "weighting": "uniform",
        "batch_size": 8,
        "epochs": 3,
    },
    # The same model, trained better than the specification says: the v prediction does not amplify
    # errors at high noise, and so small a model takes five times the learning rate.
    "recommended": {"prediction": "v", "lr": 1e-3},
    # Others of the same size, trained exactly as `improved` is: two references without an ODE, and
    # a U-Net of liquid cells.
    "inspired": {"model": "inspired"},
    "unet": {"model": "unet"},
    "liquid_unet": {"model": "liquid_unet", "solver": "semi_implicit_euler"},
    # The liquid U-Net trained as well as we know how in half an hour of one core of a recent CPU:
    # what each choice brings is in examples/benchmarks/results/liquid_unet_choices.json.
    "tuned": {
        "model": "liquid_unet",
        "model_options": {"steps": [1, 4, 4], "attention": [2]},
        "solver": "semi_implicit_euler",
        "prediction": "v",
        "batch_size": 64,
        "lr": 4e-3,
        "epochs": 12,
    },
}
