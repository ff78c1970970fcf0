"""Looking at a model and measuring it: grids of images, curves of a run."""

from liquid_ode.evaluation.pictures import plot_metrics, save_grid, save_image

__all__ = ["plot_metrics", "save_grid", "save_image"]
