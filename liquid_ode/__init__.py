"""Liquid (continuous-time) neural cells driven by injected ODE solvers, and image diffusion.

The public names are imported on first use, so that ``import liquid_ode`` stays light: it brings
in neither torchvision nor matplotlib nor accelerate.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "CfCCell": "cells",
    "ConvLiquidCell": "cells",
    "ConvLiquidField": "cells",
    "LiquidCell": "cells",
    "LiquidField": "cells",
    "LiquidRNN": "cells",
    "GatedForm": "cells",
    "LTCCell": "cells",
    "LTCField": "cells",
    "LeCunTanh": "cells",
    "NoGateForm": "cells",
    "ODECell": "cells",
    "PureForm": "cells",
    "RecurrentCell": "cells",
    "WiredCfCCell": "cells",
    "Wiring": "cells",
    "from_ncps": "cells",
    "create_model": "models",
    "model_names": "models",
    "GaussianDiffusion": "diffusion",
    "CosineSchedule": "diffusion",
    "LinearSchedule": "diffusion",
    "MinSNR": "diffusion",
    "BatchNormalisedMinSNR": "diffusion",
    "UniformWeighting": "diffusion",
    "DDIM": "diffusion",
    "ProbabilityFlow": "diffusion",
    "TrainConfig": "training",
    "load_run": "training",
    "train": "training",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  (the names are the keys above; one list, not two)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'liquid_ode' has no attribute {name!r}")
    value = getattr(import_module(f"liquid_ode.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
