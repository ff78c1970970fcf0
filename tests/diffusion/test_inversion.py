"""Inversion: the closed form of Gaussian data, its order, diffusers, and the way back."""

import math
import warnings

import pytest
import torch
from torch import nn

from liquid_ode.diffusion import (
    DDIM,
    CosineSchedule,
    DDIMInversion,
    FlowInversion,
    GaussianDiffusion,
    LinearSchedule,
    LogSNRPath,
    ProbabilityFlow,
    SamplingError,
)
from solvers import (
    ETDRK2,
    ClassicRK4,
    Euler,
    ExponentialEuler,
    Heun,
    SemiImplicitEuler,
    Tsit5,
    Uniform,
)
from tests.diffusion.gaussian_data import GaussianData

COSINE, LINEAR = CosineSchedule(), LinearSchedule()
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


class ConvStub(nn.Module):
    """A small network that depends smoothly on the image, the time and the class."""

    def __init__(self, num_classes=None):
        super().__init__()
        torch.manual_seed(0)
        self.image_shape, self.num_classes = (3, 8, 8), num_classes
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, t, class_labels=None):
        out = torch.tanh(self.conv(x)) + (t.float() / 1000).view(-1, 1, 1, 1)
        if class_labels is not None:
            out = out + self.classes(class_labels)[:, :, None, None]
        return self.drop(out)


def rms(x):
    return x.double().square().mean().sqrt().item()


# Closed form


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=repr)
@pytest.mark.parametrize(
    ("solver", "order", "steps"),
    [
        (Euler(step_size=Uniform()), 1, 80),
        (Euler(), 1, 80),
        (ExponentialEuler(), 1, 80),
        (SemiImplicitEuler(), 1, 160),
        (Heun(), 2, 40),
        (ETDRK2(), 2, 80),
        (ClassicRK4(), 4, 16),
    ],
    ids=["uniform", "euler", "exponential", "semi_implicit", "heun", "etdrk2", "rk4"],
)
def test_the_noise_of_an_image_is_that_of_the_closed_form(schedule, solver, order, steps):
    data = GaussianData(schedule=schedule)
    diffusion, images = data.diffusion(), data.draw(8)

    def error(n: int) -> float:
        inversion = FlowInversion(solver.with_steps(n))
        low, high = schedule.sigmas[0].item(), inversion.path.sigma_range(schedule)[0]
        noise = inversion.invert(diffusion, images.float())
        # at σ_min the image is x0 + σ ε̂, of which the clean step gives the image back
        x_bar = (
            images
            + low
            * diffusion.denoise_at_sigma(
                images.float() / math.hypot(1, low), torch.full((8,), low)
            ).epsilon.double()
        )
        return rms(noise - data.flow(x_bar, low, high) / math.hypot(1, high))

    coarse, fine = error(steps), error(2 * steps)
    assert math.log2(coarse / fine) == pytest.approx(order, rel=0.12)
    assert fine < {1: 0.08, 2: 5e-3, 4: 1e-5}[order]


def test_an_adaptive_solver_inverts_to_its_tolerance():
    data = GaussianData()
    images = data.draw(4).float()
    inversion = FlowInversion(Tsit5(rtol=1e-5, atol=1e-5))
    assert rms(inversion.reconstruct(data.diffusion(), images) - images) < 1e-4


@pytest.mark.parametrize("sigma_max", [5.0, 80.0, math.inf])
def test_the_noise_is_standard_normal_where_the_images_are_the_data(sigma_max):
    data = GaussianData()
    noise = FlowInversion(Heun(steps=60), LogSNRPath(sigma_max)).invert(
        data.diffusion(), data.draw(4000).float()
    )
    # at σ = 5 a little of the data's mean and covariance is left
    tolerance = 0.05 if sigma_max > 5 else 0.2
    cov = torch.cov(noise.flatten(1).T)
    torch.testing.assert_close(cov, torch.eye(6), rtol=0, atol=max(tolerance, 0.08))
    assert noise.mean(0).abs().max().item() < tolerance


# The way back


@pytest.mark.parametrize(
    ("make", "order", "steps"),
    [
        (lambda n: DDIMInversion(DDIM(n)), 1, 100),
        (lambda n: FlowInversion(ExponentialEuler(steps=n)), 1, 100),
        (lambda n: FlowInversion(Heun(steps=n)), 2, 80),
        (lambda n: FlowInversion(ClassicRK4(steps=n)), 4, 6),
    ],
    ids=["ddim", "exponential_euler", "heun", "rk4"],
)
def test_the_error_of_a_reconstruction_falls_at_the_method_s_order(make, order, steps):
    diffusion = GaussianDiffusion(ConvStub(), LINEAR, "v", clip_sample=False)
    coarse, fine = (
        rms(make(n).reconstruct(diffusion, IMAGES) - IMAGES) for n in (steps, 2 * steps)
    )
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)
    assert fine < 0.05


def test_more_iterations_converge_to_the_exact_inverse_of_ddim():
    diffusion = GaussianDiffusion(ConvStub(), LINEAR, "v", clip_sample=False)
    errors = [
        rms(DDIMInversion(DDIM(20), iterations).reconstruct(diffusion, IMAGES) - IMAGES)
        for iterations in (1, 2, 4, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2
    assert errors[-1] < 1e-4


def test_images_of_a_model_that_clips_come_back_too():
    diffusion = GaussianDiffusion(ConvStub(), LINEAR, "v")
    for inversion in (DDIMInversion(DDIM(50), 10), FlowInversion(Heun(steps=50))):
        assert rms(inversion.reconstruct(diffusion, 0.5 * IMAGES) - 0.5 * IMAGES) < 1e-3


# diffusers


@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_s_inverse_is_that_of_diffusers(steps):
    # Of noise predictions: v and x0 the peer reads at the lower level, not where the model was
    # asked, which gives NaN for x0 at its first step.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import DDIMInverseScheduler
    diffusion = GaussianDiffusion(ConvStub(), LINEAR, "epsilon", clip_sample=False).eval()
    peer = DDIMInverseScheduler(
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    peer.set_timesteps(steps)
    x = IMAGES
    with torch.no_grad():
        for t in peer.timesteps:
            x = peer.step(diffusion.model(x, t.expand(3)), t, x).prev_sample
    own = DDIMInversion(DDIM(steps)).invert(diffusion, IMAGES)
    torch.testing.assert_close(own, x, rtol=1e-4, atol=1e-4)


# What is shared


def test_labels_guidance_batches_and_modes():
    diffusion = GaussianDiffusion(ConvStub(3), LINEAR, "v").train()
    inversion = DDIMInversion(DDIM(10))
    counts = []
    whole = inversion.invert(
        diffusion,
        IMAGES,
        class_labels=[0, 1, 2],
        guidance_scale=1.5,
        callback=lambda progress: counts.append(progress.evaluations),
    )
    assert counts == list(range(1, 11))
    assert diffusion.training
    assert not whole.requires_grad
    parts = inversion.invert(
        diffusion, IMAGES, class_labels=[0, 1, 2], guidance_scale=1.5, batch_size=2
    )
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
    for options in ({}, {"class_labels": 1}, {"class_labels": [0, 1, 2]}):
        other = inversion.invert(diffusion, IMAGES, **options)
        assert (other - whole).abs().max().item() > 1e-3


@pytest.mark.parametrize("inversion", [DDIMInversion(DDIM(6)), FlowInversion(Heun(steps=3))])
def test_as_many_evaluations_up_as_down(inversion):
    """Peers make one step less upwards, and so never come back to where they started."""
    counts = ([], [])
    diffusion = GaussianDiffusion(ConvStub(), LINEAR, "v")
    inversion.invert(diffusion, IMAGES, callback=lambda p: counts[0].append(p.evaluations))
    inversion.sampler.sample(diffusion, 3, callback=lambda p: counts[1].append(p.evaluations))
    assert counts[0] == counts[1] != []


def test_the_sampler_is_the_one_that_goes_back():
    path = LogSNRPath(20.0)
    assert FlowInversion(Heun(steps=7), path).sampler == ProbabilityFlow(Heun(steps=7), path)
    assert DDIMInversion(DDIM(9)).sampler == DDIM(9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIMInversion(DDIM(eta=1.0)), "eta=0"),
        (lambda: DDIMInversion(iterations=0), "iterations must be a whole number"),
        (lambda: FlowInversion("heun"), "solver must be a solver"),
        (lambda: FlowInversion(Heun(), 80.0), "path must be"),
        (lambda: invert(IMAGES * 200 + 20), "must lie in .-1, 1."),
        (lambda: invert((IMAGES * 100).byte()), "floating-point tensor"),
        (lambda: invert(IMAGES / 0), "finite"),
        (lambda: invert(IMAGES[:0]), "must be a batch"),
        (lambda: invert(IMAGES, class_labels=1), "no classes"),
        (lambda: invert(IMAGES, guidance_scale=2.0), "the model has no classes"),
        (lambda: invert(IMAGES, batch_size=0), "batch_size must be"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def invert(images, **options):
    diffusion = GaussianDiffusion(ConvStub(), LINEAR, "v")
    return DDIMInversion(DDIM(2)).invert(diffusion, images, **options)


def test_a_broken_model_says_so():
    diffusion = GaussianDiffusion(ConvStub(), LINEAR, "v")
    diffusion.model.conv.bias.data.fill_(math.nan)
    with pytest.raises(SamplingError, match="NaN"):
        DDIMInversion(DDIM(2)).invert(diffusion, IMAGES)
