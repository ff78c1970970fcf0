"""The states that samplers pass through, with models that are right about the image."""

import math

import pytest
import torch
from torch import nn

from liquid_ode.diffusion import (
    DDIM,
    DDPM,
    CosineSchedule,
    DPMSolver,
    GaussianDiffusion,
    KarrasGrid,
    KarrasHeun,
    ProbabilityFlow,
    seeded_noise,
)


def test_a_perfect_denoiser_gives_the_image():
    class Knows(nn.Module):
        def forward(self, x, t):
            return torch.full_like(x, 0.25)

    diffusion = GaussianDiffusion(Knows(), prediction="x0")
    for sampler in (DDIM(3), DDPM(3), DPMSolver(3), KarrasHeun(3), ProbabilityFlow()):
        out = sampler.sample(diffusion, 2, image_shape=(3, 4, 4))
        assert torch.equal(out, torch.full((2, 3, 4, 4), 0.25)), sampler


class KnowsTheImage(nn.Module):
    """A model that is right about every noisy state of one image, and remembers the states."""

    def __init__(self):
        super().__init__()
        self.x0 = seeded_noise([5], (3, 4, 4)).clamp(-1, 1)
        self.states = []

    def forward(self, x, t):
        self.states.append((x.clone(), t))
        return self.x0.expand_as(x)


@pytest.mark.parametrize(
    "sampler",
    [DDIM(13), DDIM(KarrasGrid(7)), DPMSolver(13), DPMSolver(KarrasGrid(7)), KarrasHeun(7)],
    ids=repr,
)
def test_every_state_has_the_noise_that_its_time_says(sampler):
    """x_t = √ᾱ_t x0 + √(1−ᾱ_t) z at each call, also where the steps do not divide the schedule."""
    model, schedule = KnowsTheImage(), CosineSchedule()
    z = seeded_noise([9], (3, 4, 4)).double()
    out = sampler.sample(GaussianDiffusion(model, schedule, "x0"), 1, initial_noise=z.float())
    sigmas = {level.t: level.sigma for level in sampler.grid.levels(schedule)}
    start = max(sigmas.values())
    for x, t in model.states:
        (sigma,) = (s for time, s in sigmas.items() if time == pytest.approx(t.item(), abs=1e-4))
        # z at the start stands for x̄/√(1+σ²) there, so for the noise (z √(1+σ²) − x0)/σ
        noise = (z * math.sqrt(1 + start**2) - model.x0) / start
        expected = (model.x0 + sigma * noise) / math.sqrt(1 + sigma**2)
        torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(out, model.x0)
