"""Gaussian diffusion: schedules, predictions, loss weightings, and samplers."""

from liquid_ode.diffusion.ddim import DDIM, DDPM
from liquid_ode.diffusion.dequantisation import (
    Dequantisation,
    GaussianDequantisation,
    UniformDequantisation,
)
from liquid_ode.diffusion.dpm_solver import DPMSolver
from liquid_ode.diffusion.editing import RePaint, image_to_image
from liquid_ode.diffusion.gaussian import Denoised, GaussianDiffusion, Losses
from liquid_ode.diffusion.grid_sampler import GridSampler
from liquid_ode.diffusion.grids import (
    KarrasGrid,
    Level,
    LogSNRGrid,
    SigmaList,
    TimeGrid,
    TimeList,
    TrailingGrid,
)
from liquid_ode.diffusion.guidance import Guidance
from liquid_ode.diffusion.heun import KarrasHeun
from liquid_ode.diffusion.interpolation import arc, slerp
from liquid_ode.diffusion.inversion import DDIMInversion, FlowInversion, Inversion
from liquid_ode.diffusion.learned_sampler import LearnedSampler
from liquid_ode.diffusion.likelihood import BitsPerDim, Likelihood, LogDensity
from liquid_ode.diffusion.noise import SeededNoise, seeded_noise
from liquid_ode.diffusion.predictions import Epsilon, Prediction, Sample, Velocity
from liquid_ode.diffusion.probability_flow import (
    DDIMPath,
    LogSNRPath,
    NoisePath,
    ProbabilityFlow,
)
from liquid_ode.diffusion.sampler_training import SamplerProgress, train_sampler
from liquid_ode.diffusion.sampling import (
    Progress,
    Sampled,
    Sampler,
    SamplingError,
    classes_in_turn,
)
from liquid_ode.diffusion.schedules import CosineSchedule, LinearSchedule, Schedule
from liquid_ode.diffusion.weightings import (
    BatchNormalisedMinSNR,
    MinSNR,
    UniformWeighting,
    Weighting,
)

__all__ = [
    "DDIM",
    "DDPM",
    "BatchNormalisedMinSNR",
    "BitsPerDim",
    "CosineSchedule",
    "DDIMInversion",
    "DDIMPath",
    "DPMSolver",
    "Denoised",
    "Dequantisation",
    "Epsilon",
    "FlowInversion",
    "GaussianDequantisation",
    "GaussianDiffusion",
    "GridSampler",
    "Guidance",
    "Inversion",
    "KarrasGrid",
    "KarrasHeun",
    "LearnedSampler",
    "Level",
    "Likelihood",
    "LinearSchedule",
    "LogDensity",
    "LogSNRGrid",
    "LogSNRPath",
    "Losses",
    "MinSNR",
    "NoisePath",
    "Prediction",
    "ProbabilityFlow",
    "Progress",
    "RePaint",
    "Sample",
    "Sampled",
    "Sampler",
    "SamplerProgress",
    "SamplingError",
    "Schedule",
    "SeededNoise",
    "SigmaList",
    "TimeGrid",
    "TimeList",
    "TrailingGrid",
    "UniformDequantisation",
    "UniformWeighting",
    "Velocity",
    "Weighting",
    "arc",
    "classes_in_turn",
    "image_to_image",
    "seeded_noise",
    "slerp",
    "train_sampler",
]
