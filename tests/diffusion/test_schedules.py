"""Noise schedules: against diffusers, the closed forms, and the inverse t(σ)."""

import copy
import math
import pickle
import warnings

import pytest
import torch

from liquid_ode.diffusion import CosineSchedule, LinearSchedule, Schedule

SCHEDULES = [
    CosineSchedule(),
    CosineSchedule(7),
    CosineSchedule(1),
    CosineSchedule(200, s=0.02, max_beta=0.5),
    CosineSchedule(3, max_beta=0.01),
    LinearSchedule(),
    LinearSchedule(400),
    LinearSchedule(25),
    LinearSchedule(1),
]


def diffusers_alphas(name: str) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what diffusers' imports deprecate is not ours
        from diffusers import DDIMScheduler

    return DDIMScheduler(num_train_timesteps=1000, beta_schedule=name).alphas_cumprod


@pytest.mark.parametrize(
    ("schedule", "name"), [(CosineSchedule(), "squaredcos_cap_v2"), (LinearSchedule(), "linear")]
)
def test_alphas_are_those_of_diffusers(schedule, name):
    torch.testing.assert_close(schedule.alphas_cumprod, diffusers_alphas(name), rtol=0, atol=1e-5)
    # also relatively, where ᾱ is small; diffusers accumulates in float32
    torch.testing.assert_close(
        schedule.alphas_cumprod.log(), diffusers_alphas(name).log(), rtol=0, atol=1e-4
    )


def test_cosine_is_the_equation():
    schedule = CosineSchedule(100, s=0.01)
    f = [math.cos((t / 100 + 0.01) / 1.01 * math.pi / 2) ** 2 for t in range(101)]
    expected = torch.tensor([f[t + 1] / f[0] for t in range(99)])  # the last β is clipped
    torch.testing.assert_close(schedule.alphas_cumprod[:99], expected, rtol=1e-6, atol=0)
    assert schedule.betas[99].item() == pytest.approx(0.999)
    assert schedule.alphas_cumprod[99].item() == pytest.approx(0.001 * f[99] / f[0], rel=1e-5)


@pytest.mark.parametrize(("t", "sigma"), [(499, 1.01), (989, 64.0), (999, 20_291.0)])
def test_cosine_noise_levels_of_the_specification(t, sigma):
    assert CosineSchedule().sigma(t).item() == pytest.approx(sigma, rel=5e-3)


def test_small_sigmas_keep_their_digits():
    # 1 − ᾱ from a float32 ᾱ would be off by 1e-3 here
    f0, f1 = (math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 1e-3))
    assert CosineSchedule().sigma(0).item() == pytest.approx(math.sqrt(f0 / f1 - 1), rel=1e-6)


def test_linear_betas_are_scaled_to_the_number_of_steps():
    betas = LinearSchedule(400).betas
    assert betas[0].item() == pytest.approx(2.5e-4)
    assert betas[-1].item() == pytest.approx(0.05)
    few, many = (LinearSchedule(steps).alphas_cumprod[-1].log() for steps in (400, 1000))
    assert few.item() == pytest.approx(many.item(), rel=0.03)  # the same noise in all


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_tables_are_consistent_float32_on_the_cpu(schedule):
    for table in (schedule.betas, schedule.alphas_cumprod, schedule.sigmas):
        assert table.dtype == torch.float32
        assert table.device.type == "cpu"
        assert table.shape == (schedule.num_steps,)
    t = torch.arange(schedule.num_steps)
    sigma = schedule.sigma(t)
    assert bool((sigma.diff() > 0).all())
    torch.testing.assert_close(schedule.snr(t) * sigma**2, torch.ones_like(sigma))
    torch.testing.assert_close(
        1 / (1 + sigma.double() ** 2), schedule.alphas_cumprod.double(), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_time_of_sigma_inverts_sigma_exactly_at_the_steps(schedule, dtype):
    t = torch.arange(schedule.num_steps)
    found = schedule.time_of_sigma(schedule.sigma(t).to(dtype))
    assert found.dtype == dtype
    assert torch.equal(found, t.to(dtype))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_time_of_sigma_increases_and_is_held_at_the_ends(schedule):
    low, high = schedule.sigmas[0].item(), schedule.sigmas[-1].item()
    sigma = torch.logspace(math.log10(low) - 1, math.log10(high) + 1, 4001)
    t = schedule.time_of_sigma(sigma.view(-1, 1))
    assert t.shape == (4001, 1)
    assert bool((t.diff(dim=0) >= -1e-3).all())  # float32 rounding of t near 1000
    assert t[0].item() == 0
    assert t[-1].item() == schedule.num_steps - 1


def test_time_of_sigma_of_cosine_is_the_closed_form_between_steps():
    schedule = CosineSchedule()
    sigma = torch.logspace(-2, 2.7, 300, dtype=torch.float64)
    f0 = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    angle = torch.arccos((f0 / (1 + sigma**2)).sqrt())
    expected = 1000 * (1.008 * (2 / math.pi) * angle - 0.008) - 1
    torch.testing.assert_close(schedule.time_of_sigma(sigma), expected, rtol=0, atol=1e-6)
    in_float32 = schedule.time_of_sigma(sigma.float()).double()
    torch.testing.assert_close(in_float32, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("schedule", "step"), [(LinearSchedule(), 500), (CosineSchedule(), 998)], ids=repr
)
def test_time_of_sigma_is_linear_in_log_sigma_elsewhere(schedule, step):
    middle = (schedule.sigma(step) * schedule.sigma(step + 1)).sqrt()
    assert schedule.time_of_sigma(middle).item() == pytest.approx(step + 0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosineSchedule(0), "num_steps must be a whole number of at least 1, not 0"),
        (lambda: CosineSchedule(10.0), "num_steps must be a whole number"),
        (lambda: CosineSchedule(True), "num_steps must be a whole number"),
        (lambda: CosineSchedule(s=0.0), "s must be positive"),
        (lambda: CosineSchedule(max_beta=1.0), r"max_beta must lie in \(0, 1\)"),
        (lambda: LinearSchedule(beta_start=0.0), "0 < beta_start <= beta_end"),
        (lambda: LinearSchedule(beta_start=0.1), "0 < beta_start <= beta_end"),
        (lambda: LinearSchedule(20), "largest is 1. Use more than 20 steps"),
        (lambda: LinearSchedule(beta_start=math.nan), "0 < beta_start"),
        (lambda: LinearSchedule(beta_end=0.5), "must leave some signal"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (-1, r"t must lie in \[0, 999\]"),
        (torch.tensor([0, 1000]), "got values from 0 to 1000"),
        (torch.tensor([0.5]), "whole time steps"),
        (3.0, "whole time steps"),
    ],
)
def test_times_outside_the_schedule(t, message):
    with pytest.raises(ValueError, match=message):
        CosineSchedule().sigma(t)


@pytest.mark.parametrize("schedule", [CosineSchedule(10), LinearSchedule(100)], ids=repr)
def test_schedules_are_values(schedule: Schedule):
    schedule.sigma(0)  # with its tables made
    for twin in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert twin == schedule
        assert hash(twin) == hash(schedule)
        assert torch.equal(twin.sigmas, schedule.sigmas)
    assert schedule != type(schedule)(50)
    with pytest.raises(AttributeError):
        schedule.num_steps = 5
