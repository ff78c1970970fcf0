"""Inpainting and image to image: exactness, the closed form of Gaussian data, RePaint's walk."""

import itertools
import math
import warnings

import pytest
import torch

from liquid_ode.diffusion import (
    DDIM,
    DDPM,
    CosineSchedule,
    GaussianDiffusion,
    KarrasGrid,
    KarrasHeun,
    LinearSchedule,
    LogSNRPath,
    ProbabilityFlow,
    RePaint,
    Sampler,
    SamplingError,
    TrailingGrid,
    image_to_image,
)
from solvers import Heun
from tests.diffusion.gaussian_data import SHAPE, GaussianData
from tests.diffusion.test_inversion import IMAGES, ConvStub

HALF = torch.zeros(1, 1, 8, 8).index_fill_(3, torch.arange(4), 1.0)  # the left half is known
QUICK = RePaint(DDIM(4, eta=1.0), jump=2, resamplings=2)


def make(num_classes=None, **options) -> GaussianDiffusion:
    return GaussianDiffusion(ConvStub(num_classes), LinearSchedule(), "v", **options)


# Inpainting


@pytest.mark.parametrize("sampler", [DDIM(4, eta=1.0), DDIM(4), DDPM(4), DDIM(KarrasGrid(4))])
@pytest.mark.parametrize("mask", [HALF, HALF.bool(), HALF.expand(3, 1, 8, 8)])
def test_known_pixels_come_back_exactly(sampler, mask):
    out = RePaint(sampler, jump=2, resamplings=3).inpaint(make(), IMAGES, mask)
    assert torch.equal(out[..., :4], IMAGES[..., :4])
    assert (out[..., 4:] - IMAGES[..., 4:]).abs().min(dim=1).values.max().item() > 1e-2
    assert out.abs().max().item() <= 1


def test_what_is_unknown_has_no_influence():
    other = torch.where(HALF.bool(), IMAGES, torch.zeros(()))
    first, second = (QUICK.inpaint(make(), images, HALF) for images in (IMAGES, other))
    assert torch.equal(first, second)


def test_nothing_known_and_everything_known():
    ones = torch.ones(1, 1, 8, 8)
    assert torch.equal(QUICK.inpaint(make(), IMAGES, ones), IMAGES)
    free = RePaint(DDIM(4), resamplings=1).inpaint(make(), IMAGES, 0 * ones)
    torch.testing.assert_close(free, DDIM(4).sample(make(), 3), rtol=0, atol=1e-6)


def test_resampling_brings_the_conditional_distribution_of_gaussian_data():
    data = GaussianData(spread=0.5, correlation=0.8)
    image = data.draw(1, seed=5).float()
    mask = torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]])
    known = mask.flatten().bool()
    a, b, c = data.cov[~known][:, known], data.cov[known][:, known], data.cov[~known][:, ~known]
    away = image.double().flatten()[known] - data.mean[known]
    mean = data.mean[~known] + a @ torch.linalg.solve(b, away)
    cov = c - a @ torch.linalg.solve(b, a.T)

    def errors(resamplings: int) -> tuple[float, float]:
        repaint = RePaint(DDIM(KarrasGrid(30), eta=1.0), jump=2, resamplings=resamplings)
        out = repaint.inpaint(data.diffusion(), image.expand(400, *SHAPE), mask)
        found = out.double().flatten(1)[:, ~known]
        return (
            (found.mean(0) - mean).abs().max().item(),
            (found.std(0) - cov.diagonal().sqrt()).abs().max().item(),
        )

    plain, resampled = errors(1), errors(8)  # of the mean and of the standard deviation
    assert resampled[0] < 0.06
    assert plain[0] > 0.1
    assert resampled[1] < 0.08


@pytest.mark.parametrize(("steps", "jump", "resamplings"), [(50, 10, 10), (20, 3, 4), (7, 7, 2)])
def test_the_walk_is_that_of_repaint(steps, jump, resamplings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import RePaintScheduler
    peer = RePaintScheduler()
    peer.set_timesteps(steps, jump_length=jump, jump_n_sample=resamplings)
    times = (peer.timesteps // (1000 // steps)).tolist()
    expected = [steps - 1 - t for t in times]  # the level that each entry stands at
    states = [0]  # after each entry: a level more, or with noise again
    for before, here in zip([-1, *expected], expected, strict=False):
        states.append(here + 1 if here > before else here)
    visited = RePaint(jump=jump, resamplings=resamplings).visits(steps)
    # the peer goes back level by level
    walked = [0]
    for here, there in itertools.pairwise(visited):
        way = range(here - 1, there - 1, -1) if there < here else [there]
        walked.extend(way)
    assert [b for a, b in itertools.pairwise(walked) if b > a] == [
        b for a, b in itertools.pairwise(states) if b > a
    ]


def test_evaluations_are_those_of_the_walk():
    counts = []
    repaint = RePaint(DDIM(6), jump=2, resamplings=3)
    repaint.inpaint(
        make(), IMAGES, HALF, callback=lambda progress: counts.append(progress.evaluations)
    )
    visited = repaint.visits(6)
    assert counts[-1] == sum(b > a for a, b in itertools.pairwise(visited)) == 14


def test_an_image_depends_on_its_seed_alone():
    diffusion = make(3)
    options = {"class_labels": [0, 1, 2], "guidance_scale": 1.5}
    mask = torch.stack([HALF[0], 1 - HALF[0], HALF[0]])
    whole = QUICK.inpaint(diffusion, IMAGES, mask, seeds=[5, 6, 7], **options)
    parts = QUICK.inpaint(diffusion, IMAGES, mask, seeds=5, batch_size=2, **options)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
    other = QUICK.inpaint(diffusion, IMAGES, mask, seeds=9, **options)
    assert (other - whole).abs().max().item() > 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RePaint(ProbabilityFlow()), "DDIM"),
        (lambda: RePaint(jump=0), "jump must be"),
        (lambda: RePaint(resamplings=0), "resamplings must be"),
        (lambda: QUICK.inpaint(make(), IMAGES, HALF[0, 0]), "mask must have shape"),
        (lambda: QUICK.inpaint(make(), IMAGES, HALF.expand(1, 3, 8, 8)), "mask must have shape"),
        (lambda: QUICK.inpaint(make(), IMAGES, HALF * 255), "zeros and ones"),
        (lambda: QUICK.inpaint(make(), IMAGES * 255, HALF), "must lie in"),
        (lambda: QUICK.inpaint(make(), IMAGES, HALF, seeds=[1]), "one for each of the 3"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_broken_model_says_so():
    diffusion = make()
    diffusion.model.conv.weight.data.fill_(math.nan)
    with pytest.raises(SamplingError, match="NaN"):
        QUICK.inpaint(diffusion, IMAGES, HALF)


# Image to image


@pytest.mark.parametrize(
    "sampler_at",
    [
        lambda sigma: ProbabilityFlow(Heun(steps=60), LogSNRPath(sigma)),
        lambda sigma: KarrasHeun(KarrasGrid(60, sigma_max=sigma)),
    ],
    ids=["flow", "karras"],
)
def test_image_to_image_has_the_closed_form_of_gaussian_data(sampler_at):
    data = GaussianData()
    images = data.draw(4).float()
    for sigma in (0.1, 2.0):
        sampler = sampler_at(sigma)
        assert sampler.first_sigma(data.schedule) == pytest.approx(sigma, rel=1e-6)
        out = image_to_image(sampler, data.diffusion(), images, seeds=3)
        noise = torch.stack(
            [torch.randn(SHAPE, generator=torch.Generator().manual_seed(3 + i)) for i in range(4)]
        )
        expected = data.flow(images + sigma * noise, sigma, 1e-6)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-3)


def test_the_more_noise_the_less_of_the_image_is_left():
    diffusion = GaussianDiffusion(ConvStub(), CosineSchedule(), "v")
    away = [
        (image_to_image(DDIM(TrailingGrid(10, sigma)), diffusion, IMAGES) - IMAGES).std().item()
        for sigma in (0.05, 0.5, 5.0)
    ]
    assert away == sorted(away)
    assert away[0] < 0.1


def test_a_sampler_that_does_not_say_where_it_starts():
    class Own(Sampler):
        def _sample_batch(self, denoise, x, noise):
            return x

    with pytest.raises(ValueError, match=r"first_sigma\(schedule\)"):
        image_to_image(Own(), make(), IMAGES)
    with pytest.raises(ValueError, match="lie in"):
        image_to_image(DDIM(2), make(), IMAGES * 255)
