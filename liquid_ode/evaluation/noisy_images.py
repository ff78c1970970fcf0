"""Images at drawn noise levels, to denoise by several models or solvers alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.diffusion import GaussianDiffusion


@dataclass(frozen=True)
class NoisyImages:
    """Clean images, and the time steps and the noise that they meet: the same for all.

    Attributes:
        x0: ``(N, 3, H, W)`` in [-1, 1].
        t: time steps ``(N,)``, long.
        noise: ε, of the shape of x0.
        labels: ``(N,)``, or None.
    """

    x0: Tensor
    t: Tensor
    noise: Tensor
    labels: Tensor | None = None

    @staticmethod
    def draw(x0: Tensor, steps: int, seed: int, labels: Tensor | None = None) -> NoisyImages:
        """Time steps uniform in 0 ... steps - 1, and standard normal noise."""
        generator = torch.Generator().manual_seed(seed)
        t = (torch.rand(len(x0), generator=generator) * steps).long()
        return NoisyImages(x0, t, torch.randn(x0.shape, generator=generator), labels)

    def __len__(self) -> int:
        return len(self.x0)

    def part(self, rows: slice, device: torch.device) -> NoisyImages:
        """Some of them, on a device."""
        labels = None if self.labels is None else self.labels[rows].to(device)
        x0, t, noise = (value[rows].to(device) for value in (self.x0, self.t, self.noise))
        return NoisyImages(x0, t, noise, labels)

    def error(self, diffusion: GaussianDiffusion) -> Tensor:
        """‖ε̂ − ε‖² of each image, the mean over its elements: ``(N,)``."""
        noisy = diffusion.add_noise(self.x0, self.noise, self.t)
        guess = diffusion.denoise(noisy, self.t, self.labels).epsilon
        return (guess - self.noise).square().flatten(1).mean(1)

    @torch.no_grad()
    def errors(self, diffusion: GaussianDiffusion, batch_size: int = 250) -> Tensor:
        """:meth:`error` of all, some at a time, on the CPU.

        Without clipping: the prediction as it is, not as a sampler mends it.
        """
        clipped, diffusion.clip_sample = diffusion.clip_sample, False
        found = []
        try:
            for start in range(0, len(self), batch_size):
                part = self.part(slice(start, start + batch_size), diffusion.device)
                found.append(part.error(diffusion).cpu())
        finally:
            diffusion.clip_sample = clipped
        return torch.cat(found)
