"""What all samplers share, and DDIM: seeds, batches, modes; each step against diffusers."""

import math
import warnings

import pytest
import torch
from torch import nn

from liquid_ode.diffusion import (
    DDIM,
    DDPM,
    CosineSchedule,
    DPMSolver,
    GaussianDiffusion,
    KarrasHeun,
    LinearSchedule,
    ProbabilityFlow,
    SeededNoise,
    TrailingGrid,
    seeded_noise,
)
from solvers import Euler

SAMPLERS = [
    DDIM(5),
    DDIM(5, eta=1.0),
    DDPM(5, variance=1.0),
    DPMSolver(5),
    KarrasHeun(3, churn=2.0),
    ProbabilityFlow(Euler(steps=5)),
]


class ConvStub(nn.Module):
    """A small network that depends on the image, the time and the class."""

    def __init__(self, num_classes=None, image_shape=(3, 8, 8)):
        super().__init__()
        torch.manual_seed(0)
        self.num_classes = num_classes
        if image_shape is not None:
            self.image_shape = image_shape
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, 3)
        self.drop = nn.Dropout(0.5)
        self.calls = []

    def forward(self, x, t, class_labels=None):
        self.calls.append((x, t))
        out = self.conv(x) + (t.float() / 1000).view(-1, 1, 1, 1)
        if self.classes is not None:
            out = out + self.classes(class_labels)[:, :, None, None]
        return self.drop(out)


def make(num_classes=None, **options) -> GaussianDiffusion:
    return GaussianDiffusion(ConvStub(num_classes), **options)


# Noise


def test_noise_depends_on_the_seed_alone():
    together = seeded_noise([3, 1, 4], (3, 8, 8))
    assert together.dtype == torch.float32
    alone = torch.cat([seeded_noise([seed], (3, 8, 8)) for seed in (3, 1, 4)])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])
    assert torch.equal(seeded_noise([7], (2, 5)), torch.randn(1, 2, 5, generator=seed(7)))


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def test_every_draw_of_an_image_is_its_own():
    both, first, second = (SeededNoise(s, (3, 4, 4)) for s in ([1, 2], [1], [2]))
    draws = [both.draw() for _ in range(3)]
    assert not torch.equal(draws[0], draws[1])
    for draw in draws:
        assert torch.equal(draw, torch.cat([first.draw(), second.draw()]))


# All samplers


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_images_are_float32_in_range_without_gradient(sampler):
    out = sampler.sample(make(), 3)
    assert out.shape == (3, 3, 8, 8)
    assert out.dtype == torch.float32
    assert out.abs().max().item() <= 1
    assert not out.requires_grad


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_an_image_does_not_depend_on_its_batch(sampler):
    # float32 products may round differently in another batch size, hence the tolerance
    diffusion = make(3, prediction="v")
    labels = torch.tensor([0, 1, 2, 0, 1])
    options = {"seeds": [5, 9, 2, 7, 1], "class_labels": labels, "guidance_scale": 1.5}
    whole = sampler.sample(diffusion, 5, **options)
    for batch_size in (1, 2, 7):
        split = sampler.sample(diffusion, 5, batch_size=batch_size, **options)
        torch.testing.assert_close(split, whole, rtol=0, atol=1e-5)
    alone = sampler.sample(diffusion, 1, seeds=[2], class_labels=2, guidance_scale=1.5)
    torch.testing.assert_close(alone, whole[2:3], rtol=0, atol=1e-5)
    assert (whole[0] - whole[3]).abs().max().item() > 1e-2  # another seed, another image


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_seeds(sampler):
    diffusion = make(prediction="v")
    default = sampler.sample(diffusion, 3)
    assert torch.equal(sampler.sample(diffusion, 3, seeds=[0, 1, 2]), default)
    assert torch.equal(sampler.sample(diffusion, 3, seeds=torch.arange(3)), default)
    shifted = sampler.sample(diffusion, 3, seeds=1)
    torch.testing.assert_close(shifted[:2], default[1:], rtol=0, atol=1e-5)
    torch.manual_seed(1)  # no global state takes part
    assert torch.equal(sampler.sample(diffusion, 3), default)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_initial_noise_takes_the_place_of_the_drawn_one(sampler):
    diffusion = make(prediction="v")
    drawn = sampler.sample(diffusion, 3, seeds=4)
    noise = seeded_noise([4, 5, 6], (3, 8, 8))
    given = sampler.sample(diffusion, 3, seeds=4, initial_noise=noise, batch_size=2)
    torch.testing.assert_close(given, drawn, rtol=0, atol=1e-5)
    other = sampler.sample(diffusion, 3, seeds=4, initial_noise=noise.flip(0))
    assert (other - drawn).abs().max().item() > 1e-2


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_model_is_in_evaluation_mode_and_put_back(sampler):
    diffusion = make(prediction="v")
    diffusion.train()
    diffusion.model.conv.eval()  # a part that was frozen stays so
    first = sampler.sample(diffusion, 2)
    assert torch.equal(sampler.sample(diffusion, 2), first)  # the dropout was off
    assert diffusion.training
    assert diffusion.model.drop.training
    assert not diffusion.model.conv.training

    diffusion.model.conv.weight.data.fill_(math.nan)
    with pytest.raises(RuntimeError, match="NaN"):
        sampler.sample(diffusion, 2)
    assert diffusion.model.drop.training  # also after a failure


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_labels_and_guidance_reach_the_model(sampler):
    diffusion = make(3, prediction="v")
    none, one, strong = (
        sampler.sample(diffusion, 2, **options)
        for options in (
            {},
            {"class_labels": [1, 1]},
            {"class_labels": 1, "guidance_scale": 3.0},
        )
    )
    assert (none - one).abs().max().item() > 1e-3
    assert (strong - one).abs().max().item() > 1e-3
    null = sampler.sample(diffusion, 2, class_labels=3)
    assert torch.equal(null, none)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_callback_sees_every_evaluation(sampler):
    diffusion, seen = make(), []
    out = sampler.sample(diffusion, 3, batch_size=2, callback=seen.append)
    evaluations = len(diffusion.model.calls) // 2  # two batches
    expected = [(first, k + 1) for first in (0, 2) for k in range(evaluations)]
    assert [(p.first_image, p.evaluations) for p in seen] == expected
    assert torch.equal(seen[-1].x0, out[2:])  # the last estimate is the image


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_evaluations_of_each_image_are_returned(sampler):
    diffusion = make()
    drawn = sampler.draw(diffusion, 3, batch_size=2)
    assert drawn.evaluations.tolist() == [len(diffusion.model.calls) // 2] * 3  # two batches
    assert torch.equal(drawn.images, sampler.sample(diffusion, 3, batch_size=2))


def test_evaluations_are_those_of_the_method():
    counts = {
        DDIM(7): 7,
        DDPM(): 1000,
        DPMSolver(7): 7,
        KarrasHeun(7): 13,
        KarrasHeun(7, churn=3.0): 13,
        KarrasHeun(1): 1,
    }
    for sampler, count in counts.items():
        assert sampler.draw(make(), 1).evaluations.tolist() == [count]


def test_image_shape():
    diffusion = GaussianDiffusion(ConvStub(image_shape=None))
    assert DDIM(1).sample(diffusion, 1).shape == (1, 3, 32, 32)
    assert DDIM(1).sample(make(), 1).shape == (1, 3, 8, 8)
    assert DDIM(1).sample(make(), 1, image_shape=(3, 4, 6)).shape == (1, 3, 4, 6)
    noise = torch.randn(1, 3, 5, 5)
    assert DDIM(1).sample(make(), 1, initial_noise=noise).shape == noise.shape


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (0, {}, "n must be a whole number of at least 1"),
        (2, {"batch_size": 0}, "batch_size must be a whole number"),
        (2, {"seeds": [1]}, "one for each of the 2 images, not 1"),
        (2, {"seeds": [1, -1]}, "whole numbers in"),
        (2, {"seeds": [1, 2.5]}, "whole numbers in"),
        (1, {"seeds": [2**63]}, "whole numbers in"),
        (2, {"seeds": 1.5}, "whole numbers"),
        (2, {"class_labels": [0, 4]}, r"class_labels must lie in \[0, 3\]"),
        (2, {"class_labels": [0]}, "one for each of the 2 images"),
        (2, {"guidance_scale": 2.0}, "needs class_labels"),
        (2, {"initial_noise": torch.zeros(3, 3, 8, 8)}, r"initial_noise must have shape \(2, 3"),
        (2, {"image_shape": (3, 0, 8)}, "every entry of image_shape"),
    ],
)
def test_bad_arguments(n, options, message):
    with pytest.raises(ValueError, match=message):
        DDIM(2).sample(make(3), n, **options)


# DDIM


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 50, 333, 999, 1000])
def test_timesteps_descend_from_the_last_in_equal_strides(steps):
    times = [level.t for level in TrailingGrid(steps).levels(CosineSchedule())]
    assert len(times) == steps
    assert times[0] == 999
    strides = [a - b for a, b in zip(times, [*times[1:], -1], strict=True)]  # the last is clean
    assert min(strides) >= 1
    assert max(strides) - min(strides) <= 1


def test_timesteps_are_the_trailing_ones():
    def times(steps, num_steps):
        return [level.t for level in DDIM(steps).grid.levels(CosineSchedule(num_steps))]

    assert times(4, 1000) == [999, 749, 499, 249]
    assert times(3, 10) == [9, 6, 2]  # 10, 6.67 and 3.33, rounded, less 1
    assert times(10, 10) == list(range(9, -1, -1))


@pytest.mark.parametrize(
    ("make_sampler", "message"),
    [
        (lambda: DDIM(0), "steps must be a whole number"),
        (lambda: DDIM(2.0), "steps must be a whole number"),
        (lambda: DDIM(eta=-0.1), r"eta must lie in \[0, 1\]"),
        (lambda: DDIM(eta=math.nan), r"eta must lie in \[0, 1\]"),
        (lambda: DDPM(variance=2), r"variance must lie in \[0, 1\]"),
        (lambda: KarrasHeun(churn=-1.0), "churn must be at least 0"),
        (lambda: KarrasHeun(churn=1.0, churn_range=(2.0, 1.0)), "churn_range must be"),
        (lambda: KarrasHeun(churn=1.0, churn_noise=math.nan), "churn_noise must be"),
        (lambda: DDIM(11).sample(make(schedule=CosineSchedule(10)), 1), "at most 10"),
    ],
)
def test_bad_samplers(make_sampler, message):
    with pytest.raises(ValueError, match=message):
        make_sampler()


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [(LinearSchedule(), "epsilon"), (CosineSchedule(), "v"), (CosineSchedule(), "x0")],
    ids=["linear-epsilon", "cosine-v", "cosine-x0"],
)
def test_every_step_is_that_of_diffusers(schedule, prediction, eta, clip):
    """Their steps from our states and outputs, with our noise, along the same time steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what diffusers' imports deprecate is not ours
        from diffusers import DDIMScheduler

    names = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
    theirs = DDIMScheduler(
        trained_betas=schedule.betas.tolist(),
        prediction_type=names[prediction],
        clip_sample=clip,
        timestep_spacing="trailing",
    )
    # Float64 takes the rounding of their 1 − ᾱ out of the comparison.
    theirs.alphas_cumprod = 1 / (1 + schedule.sigmas.double() ** 2)
    theirs.set_timesteps(20)
    assert theirs.timesteps.tolist() == [level.t for level in DDIM(20).grid.levels(schedule)]

    diffusion = make(schedule=schedule, prediction=prediction, clip_sample=clip)
    out = DDIM(20, eta=eta).sample(diffusion, 2, seeds=[8, 3])
    calls = list(diffusion.model.calls)  # before the stub is called below
    states = [x for x, _ in calls]
    noise = SeededNoise([8, 3], (3, 8, 8))
    assert torch.equal(states[0], noise.draw())
    for (x, t), after in zip(calls, [*states[1:], out], strict=True):
        with torch.no_grad():
            output = diffusion.model.eval()(x, t).double()
        expected = theirs.step(
            output,
            int(t[0]),
            x.double(),
            eta=eta,
            use_clipped_model_output=clip,
            variance_noise=noise.draw().double() if eta and after is not out else x * 0,
        ).prev_sample
        torch.testing.assert_close(after.double(), expected, rtol=1e-5, atol=1e-5)


def test_coefficients_keep_the_variance():
    for eta in (0.0, 0.3, 1.0):
        for sigma, after in ((20_291.0, 64.0), (1.0, 0.5), (0.01, 0.006), (3.0, 0.0)):
            signal, direction, spread = DDIM(eta=eta).coefficients(sigma, after)
            # ᾱ′ + (1 − ᾱ′ − σ_η²) + σ_η² = 1
            assert signal**2 + direction**2 + spread**2 == pytest.approx(1.0, rel=1e-12)
            assert direction >= 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_images_are_the_same_on_every_device(sampler):
    diffusion = make(3, prediction="v")
    options = {"class_labels": [0, 2], "guidance_scale": 1.5}
    here = sampler.sample(diffusion, 2, **options)
    there = sampler.sample(diffusion.cuda(), 2, **options)
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-2)  # TF32 convolutions
