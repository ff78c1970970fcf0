"""Image models: from noisy images and a time step to the prediction of a diffusion model."""

from liquid_ode.models.denoiser import Denoiser
from liquid_ode.models.registry import create_model, model_names, model_options

__all__ = ["Denoiser", "create_model", "model_names", "model_options"]
