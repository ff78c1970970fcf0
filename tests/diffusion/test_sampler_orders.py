"""How fast each sampler's error falls, on Gaussian data, whose flow is known in closed form."""

import math

import pytest
import torch

from liquid_ode.diffusion import (
    DDIM,
    DDPM,
    DDIMPath,
    DPMSolver,
    GaussianDiffusion,
    KarrasGrid,
    KarrasHeun,
    LogSNRGrid,
    ProbabilityFlow,
)
from solvers import Heun
from tests.diffusion.test_probability_flow import (
    COSINE,
    LINEAR,
    MEAN,
    SPREAD,
    ConvStub,
    exact,
    gaussian,
)


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=repr)
@pytest.mark.parametrize(
    ("make_sampler", "order"),
    [
        (lambda n: DDIM(LogSNRGrid(n)), 1),
        (lambda n: DPMSolver(LogSNRGrid(n)), 2),
        (lambda n: DPMSolver(KarrasGrid(n)), 2),
        (KarrasHeun, 2),
        (lambda n: KarrasHeun(LogSNRGrid(n)), 2),
    ],
    ids=["ddim", "dpm", "dpm-karras", "heun", "heun-log-snr"],
)
def test_order_of_convergence_of_each_sampler(schedule, make_sampler, order):
    z = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    errors = []
    for sampler in (make_sampler(40), make_sampler(80)):
        levels = sampler.grid.levels(schedule)
        expected = exact(z, levels[0].sigma, levels[-1].sigma)
        out = sampler.sample(gaussian(schedule), 4, initial_noise=z)
        errors.append((out - expected).square().mean().sqrt().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, rel=0.1)
    assert errors[1] < {1: 0.02, 2: 2e-3}[order]


def variance_error(sampler) -> float:
    """How far the variance of the samples is from the data's, with a standard error of 1%."""
    out = sampler.sample(gaussian(COSINE), 500, batch_size=250)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.02)
    return abs(out.var().item() / SPREAD**2 - 1)


def test_ancestral_samples_tend_to_the_data_s_variance():
    # an update that is linear in a Gaussian: its variance is wrong at the first order of the step
    coarse, fine = (variance_error(DDPM(LogSNRGrid(n))) for n in (25, 200))
    assert coarse > 0.1
    assert fine < coarse / 4
    assert variance_error(DDPM(LogSNRGrid(200), variance=1.0)) < 0.1


def test_churn_keeps_the_data_s_variance():
    assert variance_error(KarrasHeun(60, churn=20.0)) < 0.05
    louder = variance_error(KarrasHeun(60, churn=20.0, churn_noise=1.2))
    assert louder > 0.05


def test_heun_s_method_on_karras_levels_is_the_edm_sampler():
    diffusion = GaussianDiffusion(ConvStub(), COSINE, "v")
    options = {"seeds": 3, "class_labels": [0, 1, 2], "guidance_scale": 2.0}
    ours = KarrasHeun(9).draw(diffusion, 3, **options)
    flow = ProbabilityFlow(Heun(steps=1), DDIMPath(KarrasGrid(9))).draw(diffusion, 3, **options)
    torch.testing.assert_close(flow.images, ours.images, rtol=0, atol=1e-4)
    assert torch.equal(flow.evaluations, ours.evaluations)
