"""Bits per dimension: Gaussian data in closed form, a nonlinear flow's Jacobian, convergence."""

import math

import pytest
import torch
from torch import nn

from liquid_ode.diffusion import (
    CosineSchedule,
    GaussianDequantisation,
    GaussianDiffusion,
    Guidance,
    Likelihood,
    LinearSchedule,
    LogSNRPath,
    UniformDequantisation,
    seeded_noise,
)
from liquid_ode.diffusion.given_images import given_batches
from liquid_ode.diffusion.inversion import flow_up
from solvers import ClassicRK4, Euler, ExponentialEuler, Heun, Tsit5, Uniform
from tests.diffusion.gaussian_data import SHAPE, GaussianData

COSINE, LINEAR = CosineSchedule(), LinearSchedule()
D = math.prod(SHAPE)


def log_density_of_the_flow(data: GaussianData, x_bar, first: float, last: float):
    """log p of the model whose x̄ is N(0, 1 + σ²) at σ = last, at σ = first: both are Gaussian."""
    end = data.flow(x_bar, first, last).flatten(1)
    prior = -0.5 * (end**2 / (1 + last**2) + math.log(2 * math.pi * (1 + last**2))).sum(1)
    return prior + 0.5 * ((data.eigenvalues + last**2) / (data.eigenvalues + first**2)).log().sum()


# Closed form


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=repr)
@pytest.mark.parametrize("sigma_max", [10.0, 80.0, math.inf])
def test_gaussian_data_to_four_digits(schedule, sigma_max):
    # without correlation eᵀJe is the trace for every probe
    data = GaussianData(correlation=0.0, schedule=schedule)
    likelihood = Likelihood(path=LogSNRPath(sigma_max), steps=32)
    first, last = float(schedule.sigmas[0]), likelihood.path.sigma_range(schedule)[0]
    x_bar = data.draw(16)
    found = likelihood.log_density(data.diffusion(), x_bar.float())
    assert found.fine.shape == (16, 2)
    expected = log_density_of_the_flow(data, x_bar.float(), first, last)
    torch.testing.assert_close(found.fine[:, 0], expected, rtol=0, atol=2e-4 * D)
    assert (found.fine - found.coarse).abs().max().item() < 1e-3 * D
    if sigma_max > 10:  # where the model's start is that of the data
        mean = (found.fine.mean() - data.log_density(x_bar, first).mean()) / D
        assert abs(mean.item()) < 1e-3


def test_probes_are_unbiased_and_their_standard_error_is_right():
    data = GaussianData(correlation=0.8)
    images = (data.draw(8).float() * 127.5 + 127.5).round() / 127.5 - 1
    dequantisation = UniformDequantisation()
    likelihood = Likelihood(probes=64, dequantisation=dequantisation, steps=8)
    found = likelihood.bits_per_dim(data.diffusion(), images)
    first = float(COSINE.sigmas[0])
    draws = seeded_noise(range(8), SHAPE)
    x_bar, correction = dequantisation.draw(images, first, draws)
    exact = log_density_of_the_flow(data, x_bar, first, 80.0)
    expected = ((correction - exact) / (D * math.log(2))).mean().item()
    assert 1e-3 < found.probe_error < 0.05
    assert abs(found.value - expected) < 4 * found.probe_error
    fewer = Likelihood(probes=16, dequantisation=dequantisation, steps=8)
    error = fewer.bits_per_dim(data.diffusion(), images).probe_error
    assert error / found.probe_error == pytest.approx(2, rel=0.3)


class ConvStub(nn.Module):
    """A small nonlinear network."""

    image_shape = SHAPE

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x, t):
        return self.out(torch.tanh(2 * self.conv(x) + (t / 1000).view(-1, 1, 1, 1)))


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_a_nonlinear_flow_has_the_determinant_of_its_jacobian(prediction):
    diffusion = GaussianDiffusion(ConvStub(), LINEAR, prediction, clip_sample=False)
    x_bar = 0.5 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(3))
    first, last = float(LINEAR.sigmas[0]), float(LINEAR.sigmas[-1])
    options = {"class_labels": None, "guidance": Guidance(), "batch_size": None}

    def end(x: torch.Tensor) -> torch.Tensor:
        """N(0, I) coordinates of x̄, by the flow alone."""
        with given_batches(diffusion, x_bar, **options) as batches:
            denoise = next(batches).denoise
            unit = x.view(1, *SHAPE) / math.hypot(1, first)
            return flow_up(denoise, ClassicRK4(steps=32), unit, first, last).flatten()

    jacobian = torch.autograd.functional.jacobian(end, x_bar.flatten())
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(end(x_bar.flatten())).sum()
    expected = (normal + torch.linalg.slogdet(jacobian).logabsdet).item()
    many = x_bar.expand(500, *SHAPE)  # each with probes of its own
    likelihood = Likelihood(path=LogSNRPath(math.inf))
    found = likelihood.log_density(diffusion, many).fine.flatten()
    error = found.std().item() / math.sqrt(1000)
    assert abs(found.mean().item() - expected) < 4 * error
    assert error < 0.1
    assert abs(expected - found[0].item()) < 8  # and not all of it is noise


@pytest.mark.parametrize(
    ("solver", "order", "steps"),
    [(Euler(step_size=Uniform()), 1, 100), (Heun(), 2, 25), (ClassicRK4(), 4, 8)],
    ids=["euler", "heun", "rk4"],
)
def test_the_difference_between_n_and_2n_falls_at_the_order(solver, order, steps):
    data = GaussianData(correlation=0.0)
    x_bar = data.draw(4)

    def difference(n: int) -> float:
        found = Likelihood(solver, steps=n).log_density(data.diffusion(), x_bar.float())
        return (found.fine - found.coarse).abs().mean().item()

    assert math.log2(difference(steps) / difference(2 * steps)) == pytest.approx(order, abs=0.4)


def test_clipping_counts():
    stub = ConvStub()
    stub.out.weight.data.mul_(5)
    images = torch.ones(2, *SHAPE)
    free = Likelihood().log_density(
        GaussianDiffusion(stub, LINEAR, "x0", clip_sample=False), images
    )
    clipped = Likelihood().log_density(GaussianDiffusion(stub, LINEAR, "x0"), images)
    assert (free.fine - clipped.fine).abs().min().item() > 1e-2


# Dequantisation


def test_uniform_dequantisation_stays_in_its_bin():
    images = (torch.arange(256).float() / 127.5 - 1).view(1, 1, 16, 16).expand(40, 1, 16, 16)
    noise = seeded_noise(range(40), (1, 16, 16))
    x_bar, correction = UniformDequantisation().draw(images, 0.01, noise)
    assert (x_bar - images).abs().max().item() < 1.001 / 255
    assert (x_bar - images).std().item() == pytest.approx(2 / 255 / math.sqrt(12), rel=0.02)
    expected = -256 * math.log(2 / 255)
    torch.testing.assert_close(correction, torch.full((40,), expected, dtype=torch.float64))


@pytest.mark.parametrize("sigma", [0.002, 0.0064, 0.03])
@pytest.mark.parametrize("dequantisation", [UniformDequantisation(), GaussianDequantisation()])
def test_the_bound_holds_for_a_density_on_the_line(sigma, dequantisation):
    """E[−log p(x̄) + correction] >= −log P for p = N(0.1, 0.02² + σ²), whose P is an integral."""
    density = torch.distributions.Normal(0.1, math.hypot(0.02, sigma))
    value = torch.tensor(round(0.12 * 127.5 + 127.5) / 127.5 - 1)
    images = value.expand(20_000, 1, 1, 1)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    x_bar, correction = dequantisation.draw(images, sigma, noise)
    bound = (correction - density.log_prob(x_bar.flatten().double())).mean().item()
    if isinstance(dequantisation, UniformDequantisation):
        edges = torch.stack([value - 1 / 255, value + 1 / 255])
        exact = -math.log(float(density.cdf(edges).diff()))
    else:  # P = ∫ p(x̄) P(k | x̄) dx̄
        x = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
        values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
        near = -0.5 * ((x[:, None] - values) / sigma) ** 2
        k = int((values - value).abs().argmin())
        given = (near[:, k] - near.logsumexp(1)).exp()
        exact = -math.log(float(torch.trapezoid(density.log_prob(x).exp() * given, x)))
    assert exact - 0.02 < bound < exact + 0.7


# What is shared


def test_a_value_depends_on_its_image_and_seed_alone():
    data = GaussianData()
    images = (data.draw(5).float() * 127.5 + 127.5).round().clamp(0, 255) / 127.5 - 1
    done = []
    whole = Likelihood(steps=4).bits_per_dim(data.diffusion(), images, seeds=7)
    parts = Likelihood(steps=4).bits_per_dim(
        data.diffusion(), images, seeds=7, batch_size=2, callback=done.append
    )
    assert done == [2, 4, 5]
    torch.testing.assert_close(parts.each, whole.each, rtol=0, atol=1e-4)
    assert whole.each.shape == (5,)
    assert whole.evaluations == (16, 32)
    assert whole.image_error == pytest.approx(whole.each.std().item() / math.sqrt(5))
    text = str(whole)
    for number in (whole.value, whole.coarse, whole.probe_error):
        assert f"{number:.4f}" in text
    other = Likelihood(steps=4).bits_per_dim(data.diffusion(), images, seeds=8)
    assert not torch.equal(other.each, whole.each)
    assert Likelihood(steps=4).bits_per_dim(data.diffusion(), images[:1]).image_error != 0


def test_a_caller_without_gradients_gets_the_same():
    data = GaussianData()
    found = Likelihood(steps=2).log_density(data.diffusion(), data.draw(2).float()).fine
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            images = data.draw(2).float()
            other = Likelihood(steps=2).log_density(data.diffusion(), images).fine
        assert torch.equal(other, found)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Likelihood(probes=1), "at least 2"),
        (lambda: Likelihood(steps=0), "steps must be"),
        (lambda: Likelihood(Tsit5(rtol=1e-3, atol=1e-3)), "driven by a tolerance"),
        (lambda: Likelihood("heun"), "solver must be"),
        (lambda: Likelihood(path=80.0), "path must be"),
        (lambda: Likelihood(dequantisation="uniform"), "dequantisation must be"),
        (lambda: bits(torch.full((1, *SHAPE), 0.123)), "of 256 values"),
        (lambda: bits(torch.full((1, *SHAPE), math.nan)), "finite"),
        (lambda: bits("images"), "floating-point"),
        (lambda: bits(torch.zeros(1, *SHAPE, dtype=torch.uint8)), "floating-point"),
        (lambda: bits(torch.ones(2, *SHAPE), seeds=[1]), "one for each of the 2 images"),
        (lambda: bits(torch.ones(2, *SHAPE), class_labels=0), "no classes"),
        (lambda: bits(torch.ones(2, *SHAPE), batch_size=0), "batch_size"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def bits(images, **options):
    return Likelihood(steps=1).bits_per_dim(
        GaussianDiffusion(ConvStub(), LINEAR, "v", clip_sample=False), images, **options
    )


def test_a_semilinear_method_says_what_to_take():
    data = GaussianData()
    with pytest.raises(ValueError, match="heun"):
        Likelihood(ExponentialEuler()).log_density(data.diffusion(), data.draw(1).float())
