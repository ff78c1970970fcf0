"""Distances between two sets of features, by torchmetrics: Fréchet's, and the kernel distance."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn


class _GivenFeatures(nn.Module):
    """In the place of torchmetrics' network: what it is given are the features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """The squared Fréchet distance of the normal distributions with the sets' moments,

        d² = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½).

    It is biased: fewer samples give a larger distance. So compare values of equal n only, and
    look at what real images give at that n. Computed in float64.

    Reference: Heusel et al. 2017, GANs trained by a two time-scale update rule, eq. 6; Chong &
    Forsyth 2020, Effectively unbiased FID, section 3, for the bias.

    Args:
        features: ``(N, F)``.
        reference: ``(M, F)``.

    Raises:
        ValueError: another shape, a value that is not finite, or no more samples than features
            in a set: the covariance would be singular.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    _check(features, reference)
    width = features.shape[1]
    fewest = min(len(features), len(reference))
    if fewest <= width:
        raise ValueError(
            f"a Fréchet distance in {width} features needs more than {width} images on each side, "
            f"got {fewest}: take more images"
        )
    # Every process that evaluates has all its images: nothing is to be gathered from others.
    metric = FrechetInceptionDistance(_GivenFeatures(width), sync_on_compute=False)
    metric.update(reference.detach().cpu().double(), real=True)
    metric.update(features.detach().cpu().double(), real=False)
    return max(0.0, float(metric.compute()))  # equal sets may come out below by their rounding


def kernel_distance(
    features: Tensor,
    reference: Tensor,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The kernel distance (KID) with k(x, y) = (x·y/F + 1)³, and its spread over the subsets.

    The unbiased estimate of the squared maximum mean discrepancy, its mean over pairs of random
    subsets; being unbiased it may fall below 0, and does not depend on n. The spread is the
    standard deviation of single subsets' values.

    Reference: Bińkowski et al. 2018, Demystifying MMD GANs, eq. 4 and section 4.

    Args:
        features: ``(N, F)``.
        reference: ``(M, F)``.
        subsets: pairs of subsets.
        subset_size: images in each; all there are, where a set has fewer.
        seed: of the choice of subsets. The global random state is left as it was.

    Raises:
        ValueError: another shape, a value that is not finite, or a set with fewer than 2 images.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    _check(features, reference)
    fewest = min(len(features), len(reference))
    if fewest < 2:
        raise ValueError(f"a kernel distance needs at least 2 images on each side, got {fewest}")
    settings: dict[str, Any] = {
        "subsets": subsets,
        "subset_size": min(subset_size, fewest),
        "sync_on_compute": False,  # as above
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*save all extracted features")
        metric = KernelInceptionDistance(_GivenFeatures(features.shape[1]), **settings)
    metric.update(reference.detach().cpu().double(), real=True)
    metric.update(features.detach().cpu().double(), real=False)
    before = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: it seeds devices too
        mean, spread = metric.compute()
    finally:
        torch.set_rng_state(before)
    return float(mean), float(spread)


def _check(features: Tensor, reference: Tensor) -> None:
    shapes = tuple(features.shape), tuple(reference.shape)
    if features.ndim != 2 or reference.ndim != 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"features must be (N, F) and (M, F), got {shapes[0]} and {shapes[1]}")
    for what, values in (("features", features), ("reference features", reference)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"the {what} hold NaN or infinity: the images are not usable")
