"""Looking at a run: grids of images, its metrics, and the curve of the loss."""

from liquid_ode.evaluation.animation import Frames, save_animation
from liquid_ode.evaluation.metrics import read_metrics
from liquid_ode.evaluation.pictures import plot_metrics, save_grid, save_image

__all__ = ["Frames", "plot_metrics", "read_metrics", "save_animation", "save_grid", "save_image"]
