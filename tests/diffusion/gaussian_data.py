"""Gaussian data, whose optimal denoiser, flow and likelihood are known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from liquid_ode.diffusion import CosineSchedule, GaussianDiffusion, Schedule

SHAPE = (1, 2, 3)  # of an image


class GaussianData(nn.Module):
    """x0 ~ N(mean, cov) of flattened images, and E[ε | x_t] as a model that predicts noise.

    With cov = U diag(λ) Uᵀ everything is apart in the coordinates U: x̄ has variances λ + σ².
    """

    image_shape = SHAPE

    def __init__(
        self, spread: float = 0.5, correlation: float = 0.6, schedule: Schedule = CosineSchedule()
    ) -> None:
        super().__init__()
        d = math.prod(SHAPE)
        apart = (torch.arange(d)[:, None] - torch.arange(d)).abs().double()
        self.cov = spread**2 * correlation**apart  # (d, d)
        self.mean = torch.linspace(-0.3, 0.4, d, dtype=torch.float64)  # (d,)
        self.eigenvalues, self.axes = torch.linalg.eigh(self.cov)
        self.schedule = schedule
        ends = schedule.sigmas[[0, -1]].double().log().tolist()
        self.log_sigma = torch.linspace(*ends, 400_001, dtype=torch.float64)
        self.t = schedule.time_of_sigma(self.log_sigma.exp())
        self.calls = 0

    def diffusion(self) -> GaussianDiffusion:
        return GaussianDiffusion(self, self.schedule, clip_sample=False)

    def sigma(self, t: Tensor) -> Tensor:
        """σ(t), by inverting t(σ) on a fine grid."""
        t = t.double().contiguous()
        above = torch.searchsorted(self.t, t).clamp(1, len(self.t) - 1)
        low, high = self.t[above - 1], self.t[above]
        return torch.lerp(
            self.log_sigma[above - 1], self.log_sigma[above], (t - low) / (high - low)
        ).exp()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        sigma = self.sigma(t)[:, None]  # (B, 1)
        scaled = x.double().flatten(1) * (1 + sigma**2).sqrt()  # x̄, (B, d)
        apart = (scaled - self.mean) @ self.axes
        epsilon = (sigma / (self.eigenvalues + sigma**2) * apart) @ self.axes.T
        return epsilon.view(x.shape).float()

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Clean images, float64 ``(n, *SHAPE)``."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, len(self.mean), dtype=torch.float64, generator=generator)
        return (self.mean + z @ torch.linalg.cholesky(self.cov).T).view(n, *SHAPE)

    def flow(self, x_bar: Tensor, first: float, last: float) -> Tensor:
        """x̄ at σ = last, of x̄ at σ = first, float64."""
        ratio = ((self.eigenvalues + last**2) / (self.eigenvalues + first**2)).sqrt()
        apart = (x_bar.double().flatten(1) - self.mean) @ self.axes
        return (self.mean + (ratio * apart) @ self.axes.T).view(x_bar.shape)

    def log_density(self, x_bar: Tensor, sigma: float) -> Tensor:
        """log p of x̄ = x0 + σ ε, in nats, float64 ``(B,)``."""
        variances = self.eigenvalues + sigma**2
        apart = (x_bar.double().flatten(1) - self.mean) @ self.axes
        return -0.5 * ((apart**2 / variances).sum(1) + (2 * math.pi * variances).log().sum())
