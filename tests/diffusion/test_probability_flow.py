"""The sampling ODE: DDIM as Euler, and the closed form of Gaussian data."""

import math

import pytest
import torch
from torch import nn

from liquid_ode.diffusion import (
    DDIM,
    CosineSchedule,
    DDIMPath,
    GaussianDiffusion,
    LinearSchedule,
    LogSNRPath,
    ProbabilityFlow,
    Schedule,
)
from solvers import (
    Euler,
    ExponentialEuler,
    Heun,
    Midpoint,
    SemiImplicitEuler,
    Solver,
    SolverError,
    TorchDiffEq,
    Uniform,
)

COSINE, LINEAR = CosineSchedule(), LinearSchedule()
MEAN, SPREAD = 0.2, 0.5


class ConvStub(nn.Module):
    """A small network that depends on the image, the time and the class."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image_shape, self.num_classes = (3, 8, 8), 3
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.classes = nn.Embedding(4, 3)
        self.calls = []

    def forward(self, x, t, class_labels):
        self.calls.append((x, t))
        # sin(t) tells time steps apart that differ in the last digits
        shift = self.classes(class_labels) + torch.sin(t.float())[:, None]
        return self.conv(x) + shift[:, :, None, None]


class GaussianDenoiser(nn.Module):
    """E[ε | x_t] for x0 ~ N(MEAN, SPREAD²): ε = σ (x̄ − mean)/(spread² + σ²)."""

    image_shape = (3, 4, 4)

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.times = []
        ends = schedule.sigmas[[0, -1]].double().log().tolist()
        grid = torch.linspace(*ends, 400_001, dtype=torch.float64)
        self.log_sigma, self.t = grid, schedule.time_of_sigma(grid.exp())

    def sigma(self, t):
        """σ(t), by inverting t(σ) on a fine grid."""
        above = torch.searchsorted(self.t, t.double().contiguous()).clamp(1, len(self.t) - 1)
        low, high = self.t[above - 1], self.t[above]
        share = (t.double() - low) / (high - low)
        return torch.lerp(self.log_sigma[above - 1], self.log_sigma[above], share).exp()

    def forward(self, x, t):
        self.times.append(t)
        sigma = self.sigma(t).view(-1, 1, 1, 1)
        scaled = x.double() * (1 + sigma**2).sqrt()  # x̄
        return (sigma * (scaled - MEAN) / (SPREAD**2 + sigma**2)).float()


def gaussian(schedule: Schedule) -> GaussianDiffusion:
    return GaussianDiffusion(GaussianDenoiser(schedule), schedule, clip_sample=False)


def exact(z: torch.Tensor, first: float, last: float) -> torch.Tensor:
    """The flow from x̄ = √(1+σ²) z at the first σ to the last, and the clean step from there.

    x̄ − mean scales with the standard deviation √(spread² + σ²) of x̄.
    """
    z = z.double()
    scaled = MEAN + math.sqrt((SPREAD**2 + last**2) / (SPREAD**2 + first**2)) * (
        math.sqrt(1 + first**2) * z - MEAN
    )
    return MEAN + SPREAD**2 / (SPREAD**2 + last**2) * (scaled - MEAN)


def error(sampler: ProbabilityFlow, schedule: Schedule) -> float:
    z = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    out = sampler.sample(gaussian(schedule), 4, initial_noise=z)
    expected = exact(z, *sampler.path.sigma_range(schedule))
    return (out - expected).square().mean().sqrt().item()


# DDIM is Euler


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [(COSINE, "v"), (COSINE, "x0"), (LINEAR, "epsilon"), (LINEAR, "v")],
    ids=["cosine-v", "cosine-x0", "linear-epsilon", "linear-v"],
)
def test_euler_on_the_time_steps_of_ddim_is_ddim(schedule, prediction, clip, guidance_scale, steps):
    diffusion = GaussianDiffusion(ConvStub(), schedule, prediction, clip_sample=clip)
    options = {"seeds": 3, "class_labels": [0, 1, 2], "guidance_scale": guidance_scale}
    ddim = DDIM(steps, eta=0.0).sample(diffusion, 3, **options)
    of_ddim, diffusion.model.calls = diffusion.model.calls, []
    sampler = ProbabilityFlow(Euler(step_size=Uniform()), DDIMPath(steps))
    flow = sampler.sample(diffusion, 3, **options)
    scale = max(1.0, ddim.abs().max().item())  # without clipping this model runs off
    torch.testing.assert_close(flow / scale, ddim / scale, rtol=0, atol=1e-4)
    # the same evaluations: as many, at exactly the same times
    assert len(diffusion.model.calls) == steps
    for (_, t), (_, t_ddim) in zip(diffusion.model.calls, of_ddim, strict=True):
        assert torch.equal(t, t_ddim.float())


def test_epsilon_on_the_cosine_schedule_is_ddim_where_clipped():
    diffusion = GaussianDiffusion(ConvStub(), COSINE, "epsilon")
    ddim = DDIM(50).sample(diffusion, 3)
    flow = ProbabilityFlow(Euler(step_size=Uniform()), DDIMPath(50)).sample(diffusion, 3)
    # x̂0 amplifies the rounding of ε by 20,000 at t = 999; all but a few elements are clipped
    assert (flow - ddim).abs().quantile(0.99).item() < 1e-4


def test_exponential_euler_in_log_snr_is_ddim_on_those_noise_levels():
    diffusion = GaussianDiffusion(ConvStub(), COSINE, "v")
    sampler = ProbabilityFlow(ExponentialEuler(steps=8))
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    flow = sampler.sample(diffusion, 2, initial_noise=z)
    first, last = sampler.path.sigma_range(COSINE)
    sigmas = torch.logspace(math.log10(first), math.log10(last), 9).tolist()
    x = z
    for sigma, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        with torch.no_grad():
            x0, epsilon = diffusion.denoise_at_sigma(x, torch.full((2,), sigma))
        signal, direction, _ = DDIM().coefficients(sigma, after)
        x = signal * x0 + direction * epsilon
    torch.testing.assert_close(flow, x, rtol=0, atol=1e-4)


# Gaussian data


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=repr)
@pytest.mark.parametrize(
    ("solver", "order", "steps"),
    [
        (Euler(step_size=Uniform()), 1, 80),
        (Euler(), 1, 80),
        (ExponentialEuler(), 1, 80),
        (SemiImplicitEuler(), 1, 80),
        (Midpoint(), 2, 40),
        (Heun(), 2, 40),
        (TorchDiffEq("rk4"), 4, 16),
    ],
    ids=["uniform_euler", "euler", "exponential_euler", "semi_implicit", "midpoint", "heun", "rk4"],
)
def test_order_of_convergence_to_the_closed_form(schedule, solver: Solver, order, steps):
    coarse, fine = (
        error(ProbabilityFlow(solver.with_steps(n)), schedule) for n in (steps, 2 * steps)
    )
    assert math.log2(coarse / fine) == pytest.approx(order, rel=0.1)
    assert fine < {1: 0.02, 2: 1e-4, 4: 1e-6}[order]


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=repr)
@pytest.mark.parametrize("path", [LogSNRPath(), LogSNRPath(math.inf), LogSNRPath(1.0)], ids=repr)
def test_an_accurate_solver_reaches_the_closed_form(schedule, path):
    assert error(ProbabilityFlow(TorchDiffEq("rk4", steps=100), path), schedule) < 1e-4


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=repr)
def test_an_adaptive_solver_reaches_the_closed_form_on_both_paths(schedule):
    solver = TorchDiffEq("dopri5", rtol=1e-5, atol=1e-6)
    for path in (LogSNRPath(), DDIMPath(5)):
        assert error(ProbabilityFlow(solver, path), schedule) < 1e-4


def test_ddim_converges_to_the_closed_form():
    z = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = exact(z, LINEAR.sigmas[-1].item(), 1e-9)
    coarse, fine = (
        (DDIM(n).sample(gaussian(LINEAR), 4, initial_noise=z) - expected).square().mean().sqrt()
        for n in (100, 200)
    )
    assert math.log2(coarse / fine) == pytest.approx(1, abs=0.25)


def test_samples_have_the_moments_of_the_data():
    out = ProbabilityFlow(Heun(steps=40)).sample(gaussian(COSINE), 500, batch_size=250)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert out.std().item() == pytest.approx(SPREAD, abs=0.02)


@pytest.mark.parametrize("path", [LogSNRPath(), LogSNRPath(math.inf), DDIMPath(10)], ids=repr)
@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=repr)
def test_the_model_is_asked_within_its_times(schedule, path):
    diffusion = gaussian(schedule)
    ProbabilityFlow(Heun(steps=10), path).sample(diffusion, 2)
    times = torch.cat(diffusion.model.times)
    assert times.dtype == torch.float32
    assert times.min().item() >= 0
    assert times.max().item() <= 999


# Options


def test_a_schedule_of_one_step_is_one_evaluation():
    diffusion = GaussianDiffusion(ConvStub(), CosineSchedule(1), "v")
    expected = DDIM(1).sample(diffusion, 2)
    for path in (LogSNRPath(), LogSNRPath(math.inf), DDIMPath(1)):
        diffusion.model.calls = []
        out = ProbabilityFlow(Heun(), path).sample(diffusion, 2)
        assert len(diffusion.model.calls) == 1
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)


def test_the_budget_is_the_solver_s_and_one_clean_step():
    diffusion = GaussianDiffusion(ConvStub(), COSINE, "v")
    for solver, evaluations in ((Euler(steps=6), 7), (Heun(steps=6), 13)):
        diffusion.model.calls = []
        ProbabilityFlow(solver).sample(diffusion, 2)
        assert len(diffusion.model.calls) == evaluations


def test_where_the_solve_starts():
    assert LogSNRPath().sigma_range(COSINE)[0] == 80.0
    assert LogSNRPath(math.inf).sigma_range(COSINE)[0] == pytest.approx(20_291, rel=1e-3)
    few = CosineSchedule(4, max_beta=0.5)
    assert LogSNRPath().sigma_range(few) == (few.sigmas[-1].item(), few.sigmas[0].item())


def test_a_failed_solve_says_so():
    diffusion = GaussianDiffusion(ConvStub(), COSINE, "v")
    diffusion.model.conv.weight.data.fill_(math.nan)
    with pytest.raises(SolverError, match="2 of 2 samples"):
        ProbabilityFlow(Heun()).sample(diffusion, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProbabilityFlow("euler"), "solver must be a solver"),
        (lambda: ProbabilityFlow(Euler(), 50), "path must be LogSNRPath"),
        (lambda: DDIMPath(0), "steps must be a whole number"),
        (lambda: LogSNRPath(0.0), "sigma_max must be positive"),
        (lambda: LogSNRPath(math.nan), "sigma_max must be positive"),
        (
            lambda: ProbabilityFlow(Euler(), DDIMPath(1001)).sample(gaussian(COSINE), 1),
            "steps must be at most 1000",
        ),
        (
            lambda: ProbabilityFlow(ExponentialEuler(), DDIMPath(5)).sample(gaussian(COSINE), 1),
            "needs a SemilinearField",
        ),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
