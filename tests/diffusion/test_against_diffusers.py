"""Whole sampling runs beside those of diffusers' schedulers, on one model and the same noise."""

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
    KarrasGrid,
    KarrasHeun,
    LinearSchedule,
    SeededNoise,
    SigmaList,
    TimeList,
    TrailingGrid,
    seeded_noise,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")

SEEDS, SHAPE = [8, 3], (3, 8, 8)
NAMES = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
SCHEDULES = {"linear": LinearSchedule(), "cosine": CosineSchedule()}


def peers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what diffusers' imports deprecate is not ours
        import diffusers
    return diffusers


class Smooth(nn.Module):
    """A network whose output depends smoothly on the image and on the time."""

    image_shape = SHAPE

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, t):
        shift = torch.cos(t.float() / 300).view(-1, 1, 1, 1)
        return torch.tanh(self.conv(x) + shift)


def make(schedule, prediction, clip=True):
    return GaussianDiffusion(Smooth(), schedule, prediction, clip_sample=clip)


def betas(schedule):
    return schedule.betas.double().numpy()


@pytest.mark.parametrize("variance", [0.0, 1.0])
@pytest.mark.parametrize("steps", [10, 100])
@pytest.mark.parametrize(
    ("schedule", "prediction"), [("linear", "epsilon"), ("linear", "x0"), ("cosine", "v")]
)
def test_ddpm(schedule, prediction, steps, variance):
    schedule = SCHEDULES[schedule]
    scheduler = peers().DDPMScheduler(
        trained_betas=betas(schedule),
        prediction_type=NAMES[prediction],
        variance_type="fixed_large" if variance else "fixed_small",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    diffusion = make(schedule, prediction)
    noise = SeededNoise(SEEDS, SHAPE)
    x = noise.draw().double()
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        drawn = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
        for t in scheduler.timesteps:
            # They add noise to the clean image where the last step is not t = 0: it is taken out.
            last = 0.0 if t == scheduler.timesteps[-1] else 1.0
            z = last * noise.draw().double()
            patch.setattr(drawn, lambda *_, z=z, **__: z)
            output = diffusion.model(x.float(), t.expand(2)).double()
            x = scheduler.step(output, t, x).prev_sample
    grid = TrailingGrid(steps)
    own = DDPM(grid, variance=variance).sample(diffusion, 2, seeds=SEEDS)
    # where their β and ᾱ round and the images were not clipped, over 1000 steps
    torch.testing.assert_close(own.double(), x, rtol=0, atol=1e-4)


def test_the_small_variance_is_ddim_with_eta_1():
    diffusion = make(SCHEDULES["linear"], "v")
    for grid in (TrailingGrid(7), KarrasGrid(5)):
        ours = DDPM(grid).sample(diffusion, 2)
        assert torch.equal(ours, DDIM(grid, eta=1.0).sample(diffusion, 2))
        assert not torch.allclose(ours, DDPM(grid, variance=0.5).sample(diffusion, 2), atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_on_time_steps_of_ones_own(eta):
    schedule, times = SCHEDULES["linear"], [958, 458, 125, 25]
    strides = [2, 3, 10, 25]  # of 500, 333 and 100 time steps, and past the last
    scheduler = peers().DDIMScheduler(trained_betas=betas(schedule), prediction_type="v_prediction")
    diffusion = make(schedule, "v")
    noise = SeededNoise(SEEDS, SHAPE)
    x = noise.draw().double()
    for t, scheduler.num_inference_steps in zip(times, strides, strict=True):
        with torch.no_grad():
            output = diffusion.model(x.float(), torch.tensor(t).expand(2)).double()
        drawn = noise.draw().double() if eta and t != times[-1] else x * 0
        stepped = scheduler.step(
            output, t, x, eta=eta, use_clipped_model_output=True, variance_noise=drawn
        )
        x = stepped.prev_sample
    own = DDIM(TimeList(times), eta=eta).sample(diffusion, 2, seeds=SEEDS)
    torch.testing.assert_close(own.double(), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [("linear", "epsilon"), ("linear", "v"), ("cosine", "v"), ("cosine", "x0")],
)
def test_dpm_solver(schedule, prediction, karras, steps):
    """Their steps from our noise levels: trailing time steps, or Karras' in between."""
    schedule = SCHEDULES[schedule]
    scheduler = peers().DPMSolverMultistepScheduler(
        trained_betas=betas(schedule),
        prediction_type=NAMES[prediction],
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    grid = KarrasGrid(steps, sigma_max=50.0) if karras else TrailingGrid(steps)
    levels = grid.levels(schedule)
    # float64 takes the rounding of their 1 − ᾱ out of the comparison
    sigmas = torch.tensor([*(level.sigma for level in levels), 0.0], dtype=torch.float64)
    if not karras:
        torch.testing.assert_close(scheduler.sigmas.double(), sigmas, rtol=1e-3, atol=1e-3)
        assert scheduler.timesteps.tolist() == [level.t for level in levels]
    scheduler.sigmas = sigmas
    diffusion = make(schedule, prediction, clip=False)
    x = seeded_noise(SEEDS, SHAPE).double()
    with torch.no_grad():
        for level, t in zip(levels, scheduler.timesteps, strict=True):
            output = diffusion.model(x.float(), torch.tensor(level.t).expand(2)).double()
            x = scheduler.step(output, t, x).prev_sample
    own = DPMSolver(grid).sample(diffusion, 2, seeds=SEEDS).double()
    scale = x.abs().max().item()  # without clipping this model runs off
    torch.testing.assert_close(own / scale, x / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize(
    ("schedule", "prediction"), [("linear", "epsilon"), ("linear", "v"), ("cosine", "v")]
)
def test_heun(schedule, prediction, steps):
    schedule = SCHEDULES[schedule]
    scheduler = peers().HeunDiscreteScheduler(
        trained_betas=betas(schedule), prediction_type=NAMES[prediction]
    )
    scheduler.set_timesteps(steps)
    sampler = KarrasHeun(KarrasGrid(steps, sigma_max=60.0))
    levels = sampler.grid.levels(schedule)
    sigmas = torch.tensor([*(level.sigma for level in levels), 0.0], dtype=torch.float64)
    # each step but the first is in their list twice: where it starts, and where it is corrected
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    scheduler.timesteps = torch.arange(2 * steps - 1, 0, -1).double()  # only their order counts
    diffusion = make(schedule, prediction, clip=False)
    x = seeded_noise(SEEDS, SHAPE).double() * (1 + sigmas[0] ** 2).sqrt()
    times = [levels[0].t, *(level.t for level in levels[1:] for _ in range(2))]
    with torch.no_grad():
        for t, name in zip(times, scheduler.timesteps, strict=True):
            given = scheduler.scale_model_input(x, name)
            output = diffusion.model(given.float(), torch.tensor(t).expand(2)).double()
            x = scheduler.step(output, name, x).prev_sample
    own = sampler.sample(diffusion, 2, seeds=SEEDS).double()
    scale = max(x.abs().max().item(), 1.0)
    torch.testing.assert_close(own / scale, x / scale, rtol=0, atol=1e-4)


def test_euler_on_karras_levels():
    """DDIM without noise is their Euler scheduler, whatever the levels."""
    schedule = SCHEDULES["linear"]
    scheduler = peers().EulerDiscreteScheduler(
        trained_betas=betas(schedule), prediction_type="epsilon"
    )
    scheduler.set_timesteps(4)
    sigmas = [70.0, 5.0, 0.8, 0.02]
    scheduler.sigmas = torch.tensor([*sigmas, 0.0], dtype=torch.float64)
    diffusion = make(schedule, "epsilon", clip=False)
    grid = SigmaList(sigmas)
    x = seeded_noise(SEEDS, SHAPE).double() * (1 + 70.0**2) ** 0.5
    with torch.no_grad():
        for level, name in zip(grid.levels(schedule), scheduler.timesteps, strict=True):
            given = scheduler.scale_model_input(x, name)
            output = diffusion.model(given.float(), torch.tensor(level.t).expand(2)).double()
            x = scheduler.step(output, name, x).prev_sample
    own = DDIM(grid).sample(diffusion, 2, seeds=SEEDS).double()
    torch.testing.assert_close(own, x, rtol=0, atol=1e-4)
