"""Guidance: its equation, by classes and by a weaker model; rescaling, intervals, what it costs."""

import math

import pytest
import torch
from torch import nn

from liquid_ode.diffusion import (
    DDIM,
    DPMSolver,
    GaussianDiffusion,
    Guidance,
    KarrasHeun,
    LinearSchedule,
    LogSNRGrid,
    ProbabilityFlow,
)
from solvers import Tsit5

T = torch.tensor([30, 400, 600, 900])
LABELS = torch.tensor([0, 1, 2, 0])


class ConvStub(nn.Module):
    """A small network that depends on the image, the time and the class."""

    image_shape = (3, 8, 8)

    def __init__(self, num_classes=None, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.num_classes = num_classes
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, 3)
        self.drop = nn.Dropout(0.5)
        self.calls = []

    def forward(self, x, t, class_labels=None):
        self.calls.append((len(x), class_labels))
        out = self.conv(x) + (t.float() / 1000).view(-1, 1, 1, 1)
        if self.classes is not None:
            out = out + self.classes(class_labels)[:, :, None, None]
        return self.drop(out)


def make(num_classes=None, seed=0, **options) -> GaussianDiffusion:
    settings = {"clip_sample": False, "prediction": "v", **options}
    return GaussianDiffusion(ConvStub(num_classes, seed), **settings).eval()


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_weaker_model_is_left_behind():
    strong, weak = make(), make(seed=1)
    good, bad = (d.denoise(images(), T).x0 for d in (strong, weak))
    found = strong.denoise(images(), T, guidance=Guidance(2.5, weak=weak))
    torch.testing.assert_close(found.x0, good + 1.5 * (good - bad), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found.x0, good, atol=1e-2)


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
@pytest.mark.parametrize("schedule", [LinearSchedule(1000), LinearSchedule(300)], ids=repr)
def test_a_weaker_model_may_predict_something_else_on_another_schedule(prediction, schedule):
    strong = make(schedule=LinearSchedule())
    weak = make(seed=1, schedule=schedule, prediction=prediction)
    t = torch.tensor([30, 400, 600, 700])
    sigma = strong.schedule.sigma(t)
    good, bad = (d.denoise_at_sigma(images(), sigma).x0 for d in (strong, weak))
    found = strong.denoise(images(), t, guidance=Guidance(2.5, weak=weak)).x0
    scale = bad.abs().max()
    torch.testing.assert_close(
        found / scale, (good + 1.5 * (good - bad)) / scale, rtol=1e-3, atol=1e-4
    )


def test_the_weaker_model_has_the_labels_or_none():
    for num_classes, seen in ((3, LABELS), (None, None)):
        strong, weak = make(3), make(num_classes, seed=1)
        strong.denoise(images(), T, LABELS, guidance=Guidance(2.0, weak=weak))
        assert [n for n, _ in strong.model.calls] == [4]  # and none without a class
        assert [n for n, _ in weak.model.calls] == [4]
        given = weak.model.calls[0][1]
        assert given is None if seen is None else torch.equal(given, seen)
    with pytest.raises(ValueError, match="must know the model's classes, 3, or none; it has 2"):
        make(3).denoise(images(), T, LABELS, guidance=Guidance(2.0, weak=make(2)))


def test_a_scale_alone_is_guidance_by_classes():
    diffusion = make(3)
    by_scale = diffusion.denoise(images(), T, LABELS, guidance_scale=2.0)
    by_value = diffusion.denoise(images(), T, LABELS, guidance=Guidance(2.0))
    assert torch.equal(by_scale.x0, by_value.x0)
    one = DDIM(3).sample(diffusion, 4, class_labels=LABELS, guidance_scale=2.0)
    assert torch.equal(
        one, DDIM(3).sample(diffusion, 4, class_labels=LABELS, guidance=Guidance(2.0))
    )


def test_no_guidance_costs_nothing():
    strong, weak = make(3), make(3, seed=1)
    plain = strong.denoise(images(), T, LABELS)
    strong.model.calls.clear()
    found = strong.denoise(images(), T, LABELS, guidance=Guidance(1.0, weak=weak, rescale=0.5))
    assert torch.equal(found.x0, plain.x0)
    assert [n for n, _ in strong.model.calls] == [4]
    assert not weak.model.calls


@pytest.mark.parametrize("rescale", [0.0, 0.4, 1.0])
def test_rescaling_takes_the_contrast_of_the_output_back(rescale):
    diffusion = make(3, prediction="x0")  # there the output is the image itself
    plain = diffusion.denoise(images(), T, LABELS).x0
    strong = diffusion.denoise(images(), T, LABELS, guidance_scale=6.0).x0
    found = diffusion.denoise(images(), T, LABELS, guidance=Guidance(6.0, rescale=rescale)).x0
    factor = (found / strong).flatten(1)
    # one factor an image
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), rtol=1e-3, atol=1e-3)
    spreads = [x.flatten(1).std(1) for x in (plain, strong, found)]
    wanted = rescale * spreads[0] + (1 - rescale) * spreads[1]
    torch.testing.assert_close(spreads[2], wanted, rtol=1e-4, atol=1e-5)


def test_rescaling_an_empty_output_is_no_nan():
    class Nothing(nn.Module):
        num_classes = 2

        def forward(self, x, t, class_labels):
            return x * 0

    diffusion = GaussianDiffusion(Nothing(), prediction="x0")
    labels = LABELS.clamp(max=1)
    found = diffusion.denoise(images(), T, labels, guidance=Guidance(3.0, rescale=1.0))
    assert torch.equal(found.x0, torch.zeros_like(found.x0))


def test_guidance_within_an_interval_of_noise():
    diffusion = make(3)
    sigma = torch.tensor([0.2, 1.0, 3.0, 9.0])
    none, everywhere, inside = (
        diffusion.denoise_at_sigma(images(), sigma, LABELS, guidance=guidance).x0
        for guidance in (Guidance(), Guidance(3.0), Guidance(3.0, interval=(0.2, 3.0)))
    )
    assert torch.equal(inside[[0, 3]], none[[0, 3]])  # low is not within, high is
    assert torch.equal(inside[[1, 2]], everywhere[[1, 2]])
    diffusion.model.calls.clear()
    diffusion.denoise_at_sigma(images(), sigma, LABELS, guidance=Guidance(3.0, interval=(20, 30)))
    assert [n for n, _ in diffusion.model.calls] == [4]  # nothing but the model itself


def test_a_sampler_asks_for_the_weaker_model_within_the_interval_alone():
    strong, weak = make(), make(seed=1)
    grid = LogSNRGrid(9)
    sigmas = [level.sigma for level in grid.levels(strong.schedule)]
    guidance = Guidance(2.0, weak=weak, interval=(0.1, 10.0))
    strong.model.calls.clear()
    DDIM(grid).sample(strong, 2, guidance=guidance)
    assert len(strong.model.calls) == 9
    assert len(weak.model.calls) == sum(0.1 < sigma <= 10.0 for sigma in sigmas)


@pytest.mark.parametrize(
    "sampler", [DDIM(4), DPMSolver(4), KarrasHeun(3), ProbabilityFlow(Tsit5(rtol=0.1))], ids=repr
)
def test_every_sampler_is_guided_and_leaves_the_weaker_model_s_mode(sampler):
    strong, weak = make(clip_sample=True), make(seed=1, clip_sample=True).train()
    strong.train()
    plain = sampler.sample(strong, 2)
    guided = sampler.sample(strong, 2, guidance=Guidance(2.0, weak=weak))
    assert (plain - guided).abs().max().item() > 1e-3
    # its dropout was off too
    assert torch.equal(guided, sampler.sample(strong, 2, guidance=Guidance(2.0, weak=weak)))
    assert weak.training
    assert weak.model.drop.training


def test_an_earlier_state_of_the_same_weights_shares_them():
    diffusion = make(clip_sample=True, class_dropout=0.3)
    twin = diffusion.with_model(diffusion.model)
    assert twin.model is diffusion.model
    for name in ("schedule", "prediction", "weighting", "class_dropout", "clip_sample"):
        assert getattr(twin, name) == getattr(diffusion, name)
    # guided by itself a model is where it was, up to rounding
    guided = DDIM(4).sample(diffusion, 2, guidance=Guidance(3.0, weak=twin))
    torch.testing.assert_close(guided, DDIM(4).sample(diffusion, 2), rtol=0, atol=1e-5)


def test_guidance_is_a_value():
    one, other = Guidance(2.0, interval=[0.1, 3.0]), Guidance(2.0, interval=(0.1, 3.0))
    assert one == other
    assert hash(one) == hash(other)
    assert hash(KarrasHeun(4, churn=1.0, churn_range=[0.1, 3.0])) is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Guidance(math.inf), "guidance_scale must be a finite number"),
        (lambda: Guidance(2.0, rescale=1.5), r"rescale must lie in \[0, 1\]"),
        (lambda: Guidance(2.0, interval=(3.0, 1.0)), "0 <= low < high"),
        (lambda: Guidance(2.0, interval=(math.nan, 1.0)), "0 <= low < high"),
        (lambda: Guidance(2.0, weak=nn.Identity()), "weak must be a GaussianDiffusion, not Ident"),
        (lambda: DDIM(2).sample(make(3), 2, guidance=Guidance(2.0)), "needs class_labels"),
        (lambda: DDIM(2).sample(make(), 2, guidance_scale=2.0), "the model has no classes"),
        (
            lambda: DDIM(2).sample(make(3), 1, guidance_scale=2.0, guidance=Guidance(3.0)),
            "exclude each other",
        ),
        (
            lambda: DDIM(2).sample(make(3), 1, class_labels=4, guidance=Guidance(3.0)),
            r"class_labels must lie in \[0, 3\]",
        ),
    ],
)
def test_bad_guidance(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
