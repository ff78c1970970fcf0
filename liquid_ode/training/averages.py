"""Averages of the weights over the steps of a run, and averages made of those afterwards.

Reference: Karras et al. 2024, Analyzing and improving the training dynamics of diffusion models,
section 3 and appendix C.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

LONGEST = 1 / math.sqrt(12)  # all steps alike: gamma = 0


def warmed_up_decay(decay: float, updates: int) -> float:
    """min(decay, (1 + n) / (10 + n)) after n updates: early on the average forgets faster."""
    return min(decay, (1 + updates) / (10 + updates))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of ``model``'s weights: ema <- d * ema + (1 - d) * weights, d warmed up.

    The first update copies the weights.
    """
    return _averaged(model, lambda updates: warmed_up_decay(decay, updates))


def power_averaged(model: nn.Module, length: float) -> AveragedModel:
    """The average of ``model``'s weights whose profile is a power of the step (eq. 1 and 2).

    After t updates the weights of step s count in proportion to s^g - (s - 1)^g with g = gamma + 1,
    which is ema <- b * ema + (1 - b) * weights with b = (1 - 1/t)^g. The average so spans a fixed
    share of the training, however long that is.

    Args:
        model: what is averaged, at its current step.
        length: the standard deviation of the profile in parts of the training, as sigma_rel in
            the paper; 0.05 to 0.15 are usual.
    """
    power = gamma_of(length) + 1
    return _averaged(model, lambda updates: (1 - 1 / (updates + 1)) ** power)


def _averaged(model: nn.Module, decay: Callable[[int], float]) -> AveragedModel:
    @torch.no_grad()
    def update(averages: Any, weights: Any, updates: Tensor | int) -> None:
        torch._foreach_lerp_(averages, weights, 1 - decay(int(updates)))

    ema = AveragedModel(model, multi_avg_fn=update)
    ema.requires_grad_(False)
    return ema.eval()


# Names -----------------------------------------------------------------------------------------


def name_of(length: float) -> str:
    """What the average of that length is called in files and options: ``ema-0.05``."""
    return f"ema-{length:g}"


def length_of(name: str) -> float | None:
    """The inverse of ``name_of``; None for another name."""
    found = re.fullmatch(r"ema-(\d*\.?\d+)", name)
    return None if found is None else float(found[1])


# Profiles --------------------------------------------------------------------------------------


def gamma_of(length: float) -> float:
    """The exponent of the profile s^gamma whose standard deviation is ``length`` (eq. 4).

    length^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).

    Raises:
        ValueError: there is none, outside 0 < length < 1/sqrt(12).
    """
    if not 0 < length < LONGEST:
        raise ValueError(f"a length must lie in (0, {LONGEST:.4f}), got {length!r}")
    # In powers of gamma: gamma^3 + 7 gamma^2 + (16 - q) gamma + (12 - q) = 0, q = length^-2.
    q = length**-2
    return float(np.roots([1, 7, 16 - q, 12 - q]).real.max())


def reconstruction(kept: Sequence[tuple[int, float]], target: tuple[int, float]) -> list[float]:
    """The coefficients of kept averages whose sum is nearest to the target (section 3.2, eq. 7).

    Nearest means in the squared difference of the profiles over the steps.

    Args:
        kept: the step and the length of each average that there is.
        target: the step and the length of the one that is wanted.
    """
    steps, gammas = _columns(kept)
    step, gamma = _columns([target])
    inner = _inner(steps[:, None], gammas[:, None], steps[None], gammas[None])  # (K, K)
    wanted = _inner(steps[:, None], gammas[:, None], step[None], gamma[None])  # (K, 1)
    # Neighbouring profiles are nearly alike: least squares, where solving would amplify rounding.
    found = np.linalg.lstsq(inner, wanted, rcond=1e-14)[0][:, 0]
    # Weights that stay the same are their own average, also where little was kept.
    return [float(c) for c in found / found.sum()]


def _columns(pairs: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    steps = np.array([float(step) for step, _ in pairs])
    return steps, np.array([gamma_of(length) for _, length in pairs])


def _inner(t: np.ndarray, g: np.ndarray, u: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The integral of p(s) q(s) over s from 0 to min(t, u), for the profiles
    p = (g + 1) s^g / t^(g + 1) and q = (k + 1) s^k / u^(k + 1) (eq. 65).

    = (g + 1)(k + 1) / (g + k + 1) · m^(g + k + 1) / (t^(g + 1) u^(k + 1)), with m = min(t, u); by
    logarithms, since the powers of steps overflow.
    """
    least = np.minimum(t, u)
    powers = g * np.log(least / t) + k * np.log(least / u) + np.log(least / t / u)
    return np.asarray((g + 1) * (k + 1) / (g + k + 1) * np.exp(powers))
