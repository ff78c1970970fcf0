"""The learned sampler: what it is untrained, its gradient, what training brings, its files."""

import math

import pytest
import torch
from torch import nn

from liquid_ode.diffusion import (
    DDIM,
    CosineSchedule,
    DPMSolver,
    GaussianDiffusion,
    Guidance,
    KarrasGrid,
    KarrasHeun,
    LearnedSampler,
    LinearSchedule,
    SigmaList,
    train_sampler,
)
from liquid_ode.diffusion.gaussian import Denoised
from solvers import LearnedMethod, LearnedSolver
from tests.diffusion.gaussian_data import SHAPE, GaussianData

SIGMAS = [60.0, 12.0, 3.0, 0.9, 0.3, 0.05]


class ConvStub(nn.Module):
    """A small network that depends on the image, the time and the class."""

    def __init__(self, num_classes=None):
        super().__init__()
        torch.manual_seed(0)
        self.image_shape, self.num_classes = (3, 8, 8), num_classes
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, 3)

    def forward(self, x, t, class_labels=None):
        out = torch.tanh(self.conv(x)) + (t.float() / 1000).view(-1, 1, 1, 1)
        if class_labels is not None:
            out = out + self.classes(class_labels)[:, :, None, None]
        return out


def make(num_classes=None, schedule=CosineSchedule(), **options) -> GaussianDiffusion:
    return GaussianDiffusion(ConvStub(num_classes), schedule, "v", **options)


def shaken(seed: int = 0, **options) -> LearnedSampler:
    """A sampler with numbers as if it had been trained."""
    sampler = LearnedSampler(SIGMAS, **options)
    generator = torch.Generator().manual_seed(seed)
    for parameter in sampler.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return sampler


# What it is


@pytest.mark.parametrize("sigmas", [SIGMAS, [20.0, 0.5], [80.0, 40.0, 1.0, 0.9, 0.02]])
def test_untrained_it_is_the_multistep_solver_on_its_levels(sigmas):
    diffusion = make()
    expected = DPMSolver(SigmaList(sigmas)).sample(diffusion, 3)
    out = LearnedSampler(sigmas).sample(diffusion, 3)
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-4)


class Constant(nn.Module):
    """The denoiser of a data set of one image: x̂0 is 0.7 everywhere."""

    image_shape = SHAPE

    def forward(self, x, t):
        return torch.full_like(x, 0.7)


def test_a_constant_estimate_is_the_result_whatever_the_numbers():
    diffusion = GaussianDiffusion(Constant(), prediction="x0")
    out = shaken().sample(diffusion, 2)
    torch.testing.assert_close(out, torch.full_like(out, 0.7), rtol=0, atol=1e-6)


def test_the_states_of_a_constant_estimate_lie_on_the_ray_of_the_noise():
    """x̄_i = (1 − σ_i/σ_0) x̂0 + σ_i z + …: the exact flow, dx̄/dσ = (x̄ − x̂0)/σ."""
    sampler = shaken(3)
    sigmas = sampler.levels()
    torch.testing.assert_close(sampler.table()[:-1].sum(1), 1 - sigmas[1:] / sigmas[0])
    torch.testing.assert_close(sampler.table()[-1].sum(), torch.tensor(1.0))
    assert sampler.table().triu(1).count_nonzero() == 0
    assert (sigmas.diff() < 0).all()


class Smooth:
    """A denoiser in float64, for finite differences."""

    schedule, clips = CosineSchedule(), False

    def __call__(self, x_t, t, sigma):
        s = sigma.view(-1, 1, 1, 1)
        x0 = torch.tanh(x_t * (1 + s**2).sqrt() / (1 + s)) + 0.1 * torch.sin(t / 50).view(s.shape)
        return Denoised(x0, x0)


def test_gradients_are_those_of_finite_differences():
    sampler = shaken().double().requires_grad_(True)
    x = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(*values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for parameter, value in zip(sampler.parameters(), values, strict=True):
                parameter.copy_(value)
        return sampler.images(Smooth(), x).square().sum()

    values = [p.detach().clone() for p in sampler.parameters()]
    gradients = torch.autograd.grad(loss(*values), list(sampler.parameters()))
    for index, gradient in enumerate(gradients):
        direction = torch.randn(gradient.shape, dtype=torch.float64)
        ends = []
        for step in (1e-6, -1e-6):
            moved = list(values)
            moved[index] = values[index] + step * direction
            ends.append(loss(*moved).item())
        expected = (ends[0] - ends[1]) / 2e-6
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


# Training


@pytest.fixture(scope="module")
def trained() -> tuple[GaussianData, LearnedSampler]:
    data = GaussianData(schedule=LinearSchedule())
    diffusion = data.diffusion()
    sampler = train_sampler(
        diffusion, 4, teacher=KarrasHeun(KarrasGrid(40)), images=64, held_out=64, steps=150, lr=0.02
    )
    return data, sampler


def test_training_brings_it_nearer_to_the_flow(trained):
    data, sampler = trained
    assert sampler.evaluations == 4
    assert sampler.errors["trained"] < sampler.errors["untrained"] / 4
    assert sampler.errors["images"] == pytest.approx(0.5, rel=0.2)
    z = torch.randn(256, *SHAPE, generator=torch.Generator().manual_seed(9))

    def error(of) -> float:
        out = of.sample(data.diffusion(), 256, initial_noise=z)
        start = z.double() * math.hypot(1, 80)
        return (out - data.flow(start, 80.0, 1e-9)).square().mean().sqrt().item()

    learned = error(sampler)
    assert learned == pytest.approx(sampler.errors["trained"], rel=0.3)
    for other in (DPMSolver(KarrasGrid(4)), DPMSolver(4), DDIM(4), KarrasHeun(KarrasGrid(3))):
        assert learned < error(other) / 3
    assert learned < error(DDIM(20))


def test_training_leaves_the_model_alone_and_repeats_itself():
    diffusion = make(3).train()
    frozen = diffusion.model.conv.bias.requires_grad_(False)
    weights = [p.clone() for p in diffusion.parameters()]
    progress = []
    options = {"images": 8, "held_out": 4, "steps": 4, "batch_size": 4}
    first, second = (
        train_sampler(diffusion, 3, guidance=Guidance(1.5), callback=callback, **options)
        for callback in (progress.append, None)
    )
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad
    assert [p.step for p in progress] == [1, 2, 3, 4]
    assert diffusion.training
    assert not frozen.requires_grad
    assert all(
        p.requires_grad and p.grad is None for p in diffusion.parameters() if p is not frozen
    )
    for a, b in zip(weights, diffusion.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.errors["trained"] <= first.errors["untrained"]


# As a sampler


def test_images_depend_on_seed_and_label_and_not_on_the_batch():
    diffusion = make(3)
    options = {"class_labels": [0, 1, 2], "guidance_scale": 1.5}
    drawn = shaken().draw(diffusion, 3, seeds=[4, 5, 6], **options)
    assert drawn.evaluations.tolist() == [len(SIGMAS)] * 3
    assert drawn.images.abs().max().item() <= 1
    assert not drawn.images.requires_grad
    parts = shaken().sample(diffusion, 3, seeds=4, batch_size=2, **options)
    torch.testing.assert_close(parts, drawn.images, rtol=0, atol=1e-5)
    assert (shaken().sample(diffusion, 3, seeds=4) - parts).abs().max().item() > 1e-2


def test_it_says_where_it_starts():
    sampler = LearnedSampler(SIGMAS)
    assert sampler.first_sigma(CosineSchedule()) == pytest.approx(60.0)
    assert repr(sampler).startswith("LearnedSampler(6 evaluations, sigma 60 to 0.05, ")


def test_its_text_tells_it_from_others():
    """A grid of images is not written over that of another sampler, by this text."""
    assert repr(shaken(1)) == repr(shaken(1)) != repr(shaken(2))


# Files


def test_a_file_gives_the_same_sampler(tmp_path, trained):
    data, sampler = trained
    path = sampler.save(tmp_path / "sampler.safetensors")
    loaded = LearnedSampler.load(path, data.diffusion())
    first, second = (of.sample(data.diffusion(), 4) for of in (sampler, loaded))
    assert torch.equal(first, second)
    assert loaded.errors == sampler.errors
    assert loaded.description == sampler.description
    assert path.read_bytes() == loaded.save(tmp_path / "again.safetensors").read_bytes()


def test_another_diffusion_is_refused(tmp_path, trained):
    _, sampler = trained
    path = sampler.save(tmp_path / "sampler.safetensors")
    with pytest.raises(ValueError, match="model 'GaussianData', not 'ConvStub'"):
        LearnedSampler.load(path, make())
    with pytest.raises(ValueError, match="schedule 'LinearSchedule"):
        LearnedSampler.load(path).sample(GaussianData().diffusion(), 1)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "sampler.safetensors"
    with pytest.raises(ValueError, match="there is no file"):
        LearnedSampler.load(path)
    LearnedSolver([LearnedMethod.of("explicit", 3)]).save(path)
    with pytest.raises(ValueError, match="expected learned sampler, found learned solver"):
        LearnedSampler.load(path)
    whole = shaken().save(path).read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"truncated, damaged|checksum"):
        LearnedSampler.load(path)
    changed = bytearray(whole)
    changed[-2] ^= 1
    path.write_bytes(bytes(changed))
    with pytest.raises(ValueError, match="checksum"):
        LearnedSampler.load(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LearnedSampler([1.0]), "at least 2 noise levels"),
        (lambda: LearnedSampler([1.0, 2.0]), "decreasing"),
        (lambda: train_sampler(make(), 1), "at least 2 noise levels"),
        (lambda: train_sampler(make(), 2, steps=0), "steps must be"),
        (lambda: train_sampler(make(), 2, held_out=0), "held_out must be"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
