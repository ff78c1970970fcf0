"""GaussianDiffusion: the training loss, class dropout, guidance, clipping, and what it refuses."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from liquid_ode.diffusion import (
    DDIM,
    BatchNormalisedMinSNR,
    CosineSchedule,
    GaussianDiffusion,
    LinearSchedule,
    MinSNR,
    ProbabilityFlow,
    UniformWeighting,
    Velocity,
)


class ConvStub(nn.Module):
    """A small network that depends on the image, the time and the class."""

    def __init__(self, num_classes=None):
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.time = nn.Linear(1, 3)
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, 3)
        self.calls = []

    def forward(self, x, t, class_labels=None):
        self.calls.append((x.shape[0], t.dtype, class_labels))
        shift = self.time(t.to(self.time.weight.dtype)[:, None] / 1000)
        if self.classes is not None:
            shift = shift + self.classes(class_labels)
        return self.conv(x) + shift[:, :, None, None]


def make(num_classes=None, **options) -> GaussianDiffusion:
    torch.manual_seed(0)
    return GaussianDiffusion(ConvStub(num_classes), **options)


def images(seed: int, batch: int = 4) -> torch.Tensor:
    return torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The loss


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        ("epsilon", lambda x0, eps, a, b: eps),
        ("v", lambda x0, eps, a, b: a * eps - b * x0),
        ("x0", lambda x0, eps, a, b: x0),
    ],
)
def test_per_sample_loss_is_the_equation(prediction, target):
    diffusion = make(prediction=prediction)
    x0, eps, t = images(1), torch.randn(4, 3, 8, 8), torch.tensor([0, 300, 600, 999])
    alpha_bar = diffusion.schedule.alphas_cumprod[t].double().view(-1, 1, 1, 1)
    a, b = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    x_t = a * x0 + b * eps
    # ᾱ_0 in float32 gives √(1 − ᾱ_0) only to 4 digits: the tolerance is the oracle's
    torch.testing.assert_close(diffusion.add_noise(x0, eps, t).double(), x_t, rtol=0, atol=1e-5)
    output = diffusion.model(x_t.float(), t).double()
    expected = (output - target(x0, eps, a, b)).square().flatten(1).mean(1)
    loss = diffusion.per_sample_loss(x0, t, eps)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("weighting", [MinSNR(), BatchNormalisedMinSNR(), UniformWeighting()])
def test_loss_is_the_weighted_mean_of_its_terms(weighting):
    diffusion = make(weighting=weighting)
    x0 = images(1, 16)
    terms = diffusion.losses(x0, generator=gen())
    snr = diffusion.schedule.snr(terms.t)
    weights = weighting(snr, diffusion.prediction)
    torch.testing.assert_close(terms.weighted, weights * terms.unweighted)
    loss = diffusion.loss(x0, generator=gen())
    torch.testing.assert_close(loss, terms.weighted.mean())
    assert torch.equal(diffusion(x0, generator=gen()), loss)  # what wrappers call
    assert loss.shape == ()


def test_default_loss_is_epsilon_with_min_snr_on_the_cosine_schedule():
    diffusion = make()
    assert diffusion.schedule == CosineSchedule(1000)
    assert diffusion.prediction.name == "epsilon"
    assert diffusion.weighting == MinSNR(5.0)


def test_times_are_uniform_over_the_schedule():
    diffusion = make(schedule=CosineSchedule(10))
    t = diffusion.losses(images(0, 1).expand(4000, 3, 8, 8), generator=gen()).t
    counts = torch.bincount(t, minlength=10)
    assert len(counts) == 10  # none outside
    assert bool(((counts - 400).abs() < 5 * math.sqrt(400)).all())  # 5 standard deviations


def test_gradient_reaches_every_parameter():
    diffusion = make(3)
    loss = diffusion.loss(images(0), torch.tensor([0, 1, 2, 0]), gen())
    loss.backward()
    for name, parameter in diffusion.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_generator_decides_the_loss():
    diffusion = make()
    first, same, other = (diffusion.loss(images(0), generator=gen(s)) for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    torch.manual_seed(5)
    one = diffusion.loss(images(0))
    torch.manual_seed(5)
    assert torch.equal(diffusion.loss(images(0)), one)


def test_loss_is_float32_under_autocast_and_for_half_images():
    diffusion = make()
    full = diffusion.losses(images(0), generator=gen()).weighted
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = diffusion.losses(images(0), generator=gen())
    assert terms.weighted.dtype == torch.float32
    torch.testing.assert_close(terms.weighted, full, rtol=0.05, atol=0.01)
    assert diffusion.loss(images(0).half(), generator=gen()).dtype == torch.float32


def test_a_model_in_half_precision_is_guided_and_denoised_in_float32():
    class Half(ConvStub):
        def forward(self, x, t, class_labels=None):
            return super().forward(x, t, class_labels).bfloat16()

    torch.manual_seed(0)
    diffusion = GaussianDiffusion(Half(3), clip_sample=False)
    t, labels = torch.tensor([100, 400, 600, 800]), torch.tensor([0, 1, 2, 0])
    cond = diffusion.denoise(images(0), t, labels).epsilon
    uncond = diffusion.denoise(images(0), t).epsilon
    guided = diffusion.denoise(images(0), t, labels, guidance_scale=2.5).epsilon
    assert cond.dtype == uncond.dtype == guided.dtype == torch.float32
    # a sum in bfloat16 would be off by 1e-2
    torch.testing.assert_close(guided, uncond + 2.5 * (cond - uncond), rtol=0, atol=1e-5)


class Dtypes(TorchDispatchMode):
    """Records the dtype of every tensor that an operation makes."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen |= {x.dtype for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
        return out


@pytest.mark.parametrize("schedule", [CosineSchedule(20), LinearSchedule(100)])
def test_no_float64_is_made_in_training_or_sampling(schedule):
    diffusion = make(3, schedule=schedule)
    labels, data = torch.tensor([0, 1, 2, 3]), images(0).double()
    with Dtypes() as dtypes:
        diffusion.loss(data, labels).backward()  # even from float64 data
        for sampler in (DDIM(4, eta=1.0), ProbabilityFlow()):
            sampler.sample(
                diffusion, 4, class_labels=labels, guidance_scale=2.0, image_shape=(3, 8, 8)
            )
        diffusion.denoise_at_sigma(images(0), torch.rand(4) + 0.1)
    assert torch.float32 in dtypes.seen
    assert torch.float64 not in dtypes.seen


# State


def test_the_schedule_is_not_in_the_state():
    diffusion = make()
    assert {name.split(".")[0] for name in diffusion.state_dict()} == {"model"}
    assert dict(diffusion.named_buffers())["sigmas"].shape == (1000,)


def test_the_schedule_keeps_float32_when_the_model_does_not():
    diffusion = make()
    for cast in (diffusion.half, diffusion.double, diffusion.bfloat16):
        cast()
        assert torch.equal(diffusion.sigmas, diffusion.schedule.sigmas)
        assert diffusion.sigmas.dtype == torch.float32


def test_the_schedule_is_made_where_the_model_is_and_moves_with_it():
    with torch.device("meta"):
        model = ConvStub()
    assert GaussianDiffusion(model).sigmas.device.type == "meta"
    assert make().to("meta").sigmas.device.type == "meta"


def test_a_copy_is_independent_and_equal():
    diffusion = make()
    twin = copy.deepcopy(diffusion)
    assert torch.equal(
        twin.loss(images(0), generator=gen()), diffusion.loss(images(0), generator=gen())
    )


# Classes


def test_class_dropout_replaces_labels_by_no_class_in_training_only():
    diffusion = make(10, class_dropout=0.3)
    labels = torch.full((2000,), 4)
    x0 = images(0, 1).expand(2000, 3, 8, 8)
    diffusion.loss(x0, labels, gen())
    given = diffusion.model.calls[-1][2]
    assert set(given.tolist()) == {4, 10}
    assert (given == 10).float().mean().item() == pytest.approx(0.3, abs=0.05)
    diffusion.eval()
    diffusion.loss(x0, labels, gen())
    assert torch.equal(diffusion.model.calls[-1][2], labels)
    assert set(labels.tolist()) == {4}  # the caller's labels are untouched


def test_class_dropout_does_not_change_times_and_noise():
    labels = torch.tensor([0, 1, 2, 0])
    always, never = (make(3, class_dropout=p).losses(images(0), labels, gen()) for p in (0.9, 0.0))
    assert torch.equal(always.t, never.t)


def test_without_labels_a_conditional_model_is_given_no_class():
    diffusion = make(3)
    diffusion.loss(images(0))
    diffusion.denoise(images(0), torch.arange(4))
    for _, _, labels in diffusion.model.calls:
        assert labels.tolist() == [3, 3, 3, 3]


def test_a_model_without_classes_needs_no_label_argument():
    class TwoArguments(nn.Module):
        def forward(self, x, t):
            return x * 0

    assert torch.isfinite(GaussianDiffusion(TwoArguments()).loss(images(0)))


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_guidance_is_the_equation_in_epsilon(prediction):
    diffusion = make(3, prediction=prediction, clip_sample=False)
    x_t, t, labels = images(0), torch.tensor([100, 400, 600, 800]), torch.tensor([0, 1, 2, 0])
    cond = diffusion.denoise(x_t, t, labels).epsilon
    uncond = diffusion.denoise(x_t, t).epsilon
    guided = diffusion.denoise(x_t, t, labels, guidance_scale=2.5).epsilon
    torch.testing.assert_close(guided, uncond + 2.5 * (cond - uncond), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(guided, cond, atol=1e-2)


def test_guidance_costs_one_doubled_evaluation_and_none_without():
    diffusion = make(3)
    x_t, t, labels = images(0), torch.arange(4), torch.tensor([0, 1, 2, 0])
    diffusion.denoise(x_t, t, labels)
    diffusion.denoise(x_t, t, labels, guidance_scale=2.0)
    assert [batch for batch, _, _ in diffusion.model.calls] == [4, 8]
    assert diffusion.model.calls[1][2].tolist() == [0, 1, 2, 0, 3, 3, 3, 3]


# Denoising


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_denoised_image_and_noise_make_up_the_input(prediction, clip):
    diffusion = make(prediction=prediction, clip_sample=clip)
    x_t, t = 3 * images(0), torch.tensor([20, 300, 600, 900])
    x0, epsilon = diffusion.denoise(x_t, t)
    torch.testing.assert_close(diffusion.add_noise(x0, epsilon, t), x_t, rtol=0, atol=1e-5)
    assert (x0.abs().max().item() <= 1) is clip  # this model overshoots


def test_clipping_leaves_an_estimate_in_range_alone():
    class Shrink(nn.Module):
        def forward(self, x, t):
            return 0.1 * x.clamp(-1, 1)

    on, off = (
        GaussianDiffusion(Shrink(), prediction="x0", clip_sample=clip).denoise(
            images(0), torch.tensor([20, 300, 600, 900])
        )
        for clip in (True, False)
    )
    torch.testing.assert_close(on.x0, off.x0)
    torch.testing.assert_close(on.epsilon, off.epsilon)


def test_denoise_at_sigma_agrees_with_denoise_at_the_time_steps():
    diffusion = make(prediction=Velocity())
    x_t, t = images(0), torch.tensor([0, 300, 998, 999])
    at_step = diffusion.denoise(x_t, t)
    at_sigma = diffusion.denoise_at_sigma(x_t, diffusion.schedule.sigma(t))
    torch.testing.assert_close(at_sigma.x0, at_step.x0)
    torch.testing.assert_close(at_sigma.epsilon, at_step.epsilon)


# What it refuses


def broken(value: float) -> torch.Tensor:
    x0 = images(0)
    x0[2, 0, 0, 0] = value
    return x0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_in_the_data_is_named(value):
    with pytest.raises(ValueError, match=r"x0 must be finite, but 1 of 4 .* positions \[2\]"):
        make().loss(broken(value))
    with pytest.raises(ValueError, match="x0 must be finite"):
        make(3).loss(broken(value), torch.tensor([0, 1, 2, 3]))


LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.loss((images(0) * 255).to(torch.uint8)), "floating-point images"),
        (lambda d: d.loss(images(0)[:0]), "a batch of images"),
        (lambda d: d.loss(images(0), LABELS + 2), r"lie in \[0, 3\].*from 2 to 4"),
        (lambda d: d.loss(images(0), LABELS - 1), "from -1 to 1"),
        (lambda d: d.loss(images(0), LABELS[:3]), "one for each of the 4 images"),
        (lambda d: d.loss(images(0), LABELS.float()), "whole numbers"),
        (lambda d: d.per_sample_loss(images(0), LABELS[:2], images(1)), "t must have shape"),
        (lambda d: d.per_sample_loss(images(0), LABELS, images(1)[:2]), "t must have shape"),
        (lambda d: d.per_sample_loss(images(0), LABELS - 1, images(1)), r"t must lie in \[0, 999"),
        (lambda d: d.add_noise(images(0), images(1), LABELS.float()), "whole time steps"),
        (lambda d: d.denoise(images(0), LABELS + 998), r"t must lie in \[0, 999"),
        (lambda d: d.denoise(images(0), LABELS, guidance_scale=2.0), "needs class_labels"),
        (lambda d: d.denoise(images(0), LABELS, LABELS, math.nan), "finite number"),
        (lambda d: d.denoise_at_sigma(images(0), torch.zeros(4)), "one positive number"),
        (lambda d: d.denoise_at_sigma(images(0), torch.ones(3)), "one positive number"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(make(3))


def test_labels_for_a_model_without_classes():
    with pytest.raises(ValueError, match="the model has no classes"):
        make().loss(images(0), LABELS)
    with pytest.raises(ValueError, match="the model has no classes"):
        make().denoise(images(0), LABELS, LABELS)


def test_a_model_that_changes_the_shape():
    class Crop(nn.Module):
        def forward(self, x, t):
            return x[:, :1]

    with pytest.raises(ValueError, match="must return the shape of its input"):
        GaussianDiffusion(Crop()).loss(images(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction": "noise"}, "prediction must be one of"),
        ({"class_dropout": 1.5}, "class_dropout must lie in"),
        ({"schedule": "cosine"}, "schedule must be a Schedule"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cpu_generator_gives_the_same_loss_on_every_device():
    diffusion = make(3)
    here = diffusion.losses(images(0), LABELS, gen())
    there = diffusion.cuda().losses(images(0).cuda(), LABELS.cuda(), gen())
    assert torch.equal(here.t, there.t.cpu())
    torch.testing.assert_close(here.weighted, there.weighted.cpu(), rtol=1e-3, atol=1e-4)
