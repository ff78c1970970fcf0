"""Liquid (continuous-time) neural cells driven by injected ODE solvers, and image diffusion.

The public names are imported on first use, so that ``import liquid_ode`` stays light: it brings
in neither torchvision nor matplotlib nor accelerate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from liquid_ode._sibling import refuse_other_solvers

__version__ = "0.1.0"
refuse_other_solvers()

__all__ = [
    "DDIM",
    "DDPM",
    "BatchNormalisedMinSNR",
    "CfCCell",
    "ConvLiquidCell",
    "ConvLiquidField",
    "CosineSchedule",
    "DDIMInversion",
    "DPMSolver",
    "FlowInversion",
    "GatedForm",
    "GaussianDiffusion",
    "Guidance",
    "KarrasHeun",
    "LTCCell",
    "LTCField",
    "LeCunTanh",
    "LearnedSampler",
    "Likelihood",
    "LinearSchedule",
    "LiquidCell",
    "LiquidField",
    "LiquidRNN",
    "MinSNR",
    "MixedMemoryCell",
    "MotorReadout",
    "NoGateForm",
    "ODECell",
    "ProbabilityFlow",
    "PureForm",
    "RePaint",
    "RecurrentCell",
    "TrainConfig",
    "UniformWeighting",
    "WiredCfCCell",
    "Wiring",
    "create_model",
    "from_ncps",
    "image_to_image",
    "load_pretrained",
    "load_run",
    "model_names",
    "slerp",
    "train",
    "train_sampler",
]

if TYPE_CHECKING:  # what type checkers see
    from liquid_ode.cells import (
        CfCCell,
        ConvLiquidCell,
        ConvLiquidField,
        GatedForm,
        LeCunTanh,
        LiquidCell,
        LiquidField,
        LiquidRNN,
        LTCCell,
        LTCField,
        MixedMemoryCell,
        MotorReadout,
        NoGateForm,
        ODECell,
        PureForm,
        RecurrentCell,
        WiredCfCCell,
        Wiring,
        from_ncps,
    )
    from liquid_ode.diffusion import (
        DDIM,
        DDPM,
        BatchNormalisedMinSNR,
        CosineSchedule,
        DDIMInversion,
        DPMSolver,
        FlowInversion,
        GaussianDiffusion,
        Guidance,
        KarrasHeun,
        LearnedSampler,
        Likelihood,
        LinearSchedule,
        MinSNR,
        ProbabilityFlow,
        RePaint,
        UniformWeighting,
        image_to_image,
        slerp,
        train_sampler,
    )
    from liquid_ode.models import create_model, model_names
    from liquid_ode.training import TrainConfig, load_pretrained, load_run, train
else:  # what Python does; hidden from type checkers, to which it would make any name valid
    from importlib import import_module

    def __getattr__(name: str) -> object:
        if name in __all__:
            for part in ("cells", "models", "diffusion", "training"):
                module = import_module(f"liquid_ode.{part}")
                if name in module.__all__:
                    value = globals()[name] = getattr(module, name)
                    return value
        raise AttributeError(f"module 'liquid_ode' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
