"""Gaussian diffusion: schedules, predictions, loss weightings, and samplers."""

from liquid_ode.diffusion.ddim import DDIM
from liquid_ode.diffusion.gaussian import Denoised, GaussianDiffusion, Losses
from liquid_ode.diffusion.interpolation import arc, slerp
from liquid_ode.diffusion.inversion import DDIMInversion, FlowInversion, Inversion
from liquid_ode.diffusion.noise import SeededNoise, seeded_noise
from liquid_ode.diffusion.predictions import Epsilon, Prediction, Sample, Velocity
from liquid_ode.diffusion.probability_flow import (
    DDIMPath,
    LogSNRPath,
    NoisePath,
    ProbabilityFlow,
)
from liquid_ode.diffusion.sampling import Progress, Sampler, SamplingError
from liquid_ode.diffusion.schedules import CosineSchedule, LinearSchedule, Schedule
from liquid_ode.diffusion.weightings import (
    BatchNormalisedMinSNR,
    MinSNR,
    UniformWeighting,
    Weighting,
)

__all__ = [
    "DDIM",
    "BatchNormalisedMinSNR",
    "CosineSchedule",
    "DDIMInversion",
    "DDIMPath",
    "Denoised",
    "Epsilon",
    "FlowInversion",
    "GaussianDiffusion",
    "Inversion",
    "LinearSchedule",
    "LogSNRPath",
    "Losses",
    "MinSNR",
    "NoisePath",
    "Prediction",
    "ProbabilityFlow",
    "Progress",
    "Sample",
    "Sampler",
    "SamplingError",
    "Schedule",
    "SeededNoise",
    "UniformWeighting",
    "Velocity",
    "Weighting",
    "arc",
    "seeded_noise",
    "slerp",
]
