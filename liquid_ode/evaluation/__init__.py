"""Looking at a model and measuring it: grids of images, curves of a run."""

from .pictures import plot_metrics, save_grid, save_image

__all__ = ["plot_metrics", "save_grid", "save_image"]
