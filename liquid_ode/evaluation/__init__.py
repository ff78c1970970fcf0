"""Looking at a run and measuring it: pictures, FD-cnn and KID, the loss by noise level.

yardstick = Yardstick(load_cifar10(split="test"), load_cifar10())
print(yardstick.measure(samples))  # FD-cnn 6.27 at n = 1,000 (real images 0.31)
"""

from liquid_ode.evaluation.animation import Frames, save_animation
from liquid_ode.evaluation.denoising import DenoisingLoss, denoising_loss
from liquid_ode.evaluation.distances import frechet_distance, kernel_distance
from liquid_ode.evaluation.features import (
    ClassifierFeatures,
    ImageFeatures,
    InceptionFeatures,
    load_classifier,
)
from liquid_ode.evaluation.metrics import read_measurements, read_metrics
from liquid_ode.evaluation.neighbours import Neighbours, nearest, plot_neighbours
from liquid_ode.evaluation.noisy_images import NoisyImages
from liquid_ode.evaluation.pictures import plot_metrics, save_grid, save_image
from liquid_ode.evaluation.pixels import PixelStatistics
from liquid_ode.evaluation.scores import Distance, Scores, Yardstick, evaluate_images, quantised

__all__ = [
    "ClassifierFeatures",
    "DenoisingLoss",
    "Distance",
    "Frames",
    "ImageFeatures",
    "InceptionFeatures",
    "Neighbours",
    "NoisyImages",
    "PixelStatistics",
    "Scores",
    "Yardstick",
    "denoising_loss",
    "evaluate_images",
    "frechet_distance",
    "kernel_distance",
    "load_classifier",
    "nearest",
    "plot_metrics",
    "plot_neighbours",
    "quantised",
    "read_measurements",
    "read_metrics",
    "save_animation",
    "save_grid",
    "save_image",
]
