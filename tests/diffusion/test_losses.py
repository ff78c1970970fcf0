"""Predictions and loss weightings: conversions, and the one weighting in its three forms."""

import math
import warnings

import pytest
import torch

from liquid_ode.diffusion import (
    BatchNormalisedMinSNR,
    CosineSchedule,
    Epsilon,
    MinSNR,
    Sample,
    UniformWeighting,
    Velocity,
)
from liquid_ode.diffusion.predictions import as_prediction, diffuse, signal_and_noise

PREDICTIONS = [Epsilon(), Velocity(), Sample()]
DIFFUSERS_NAMES = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}


def images(seed: int, batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_signal_and_noise_keep_their_digits_at_both_ends():
    sigma = torch.tensor([1e-6, 1.0, 1e6])
    signal, noise = signal_and_noise(sigma)
    torch.testing.assert_close(signal, torch.tensor([1.0, math.sqrt(0.5), 1e-6]))
    torch.testing.assert_close(noise, torch.tensor([1e-6, math.sqrt(0.5), 1.0]))


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: p.name)
def test_the_true_target_gives_back_image_and_noise(prediction):
    x0, noise = images(0), images(1)
    sigma = CosineSchedule().sigma(torch.tensor([10, 300, 600, 900])).view(-1, 1, 1, 1)
    x_t = diffuse(x0, noise, sigma)
    output = prediction.target(x0, noise, sigma)
    torch.testing.assert_close(prediction.x0(output, x_t, sigma), x0, rtol=0, atol=1e-5)
    torch.testing.assert_close(prediction.epsilon(output, x_t, sigma), noise, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("t", [50, 500, 900])
def test_conversions_are_those_of_diffusers(prediction, t):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what diffusers' imports deprecate is not ours
        from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type=DIFFUSERS_NAMES[prediction.name],
        clip_sample=False,
    )
    theirs.set_timesteps(1000)
    x_t, output = images(0), images(1)  # any output, not only the right one
    sigma = CosineSchedule().sigma(t)
    expected = theirs.step(output, t, x_t)
    x0 = prediction.x0(output, x_t, sigma)
    torch.testing.assert_close(x0, expected.pred_original_sample, rtol=1e-5, atol=1e-5)
    signal, noise = signal_and_noise(CosineSchedule().sigma(t - 1))
    x_next = signal * x0 + noise * prediction.epsilon(output, x_t, sigma)
    torch.testing.assert_close(x_next, expected.prev_sample, rtol=1e-5, atol=1e-5)
    if prediction.name == "v":
        x0_true, eps = images(2), images(3)
        t_batch = torch.full((4,), t)
        velocity = theirs.get_velocity(x0_true, eps, t_batch)
        torch.testing.assert_close(
            prediction.target(x0_true, eps, sigma), velocity, rtol=0, atol=1e-5
        )


def test_predictions_by_name():
    assert [as_prediction(name) for name in ("epsilon", "v", "x0")] == PREDICTIONS
    assert as_prediction(Velocity()) == Velocity()
    with pytest.raises(ValueError, match="must be one of 'epsilon', 'v', 'x0'"):
        as_prediction("eps")


def test_min_snr_weights_of_the_paper():
    snr = torch.tensor([0.1, 4.0, 5.0, 50.0])
    m = torch.tensor([0.1, 4.0, 5.0, 5.0])
    weighting = MinSNR(5.0)
    torch.testing.assert_close(weighting(snr, Sample()), m)
    torch.testing.assert_close(weighting(snr, Epsilon()), m / snr)
    torch.testing.assert_close(weighting(snr, Velocity()), m / (snr + 1))


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: p.name)
def test_the_three_forms_weigh_one_error(prediction):
    """The same wrong estimate x̂0 costs the same, whatever the model predicts."""
    x0, noise, estimate = images(0, 6), images(1, 6), images(2, 6)
    times = torch.tensor([100, 300, 400, 500, 700, 900])
    schedule = CosineSchedule()
    sigma = schedule.sigma(times).view(-1, 1, 1, 1)
    x_t = diffuse(x0, noise, sigma)
    wrong_noise = Sample().epsilon(estimate, x_t, sigma)
    output = prediction.target(estimate, wrong_noise, sigma)
    error = (output - prediction.target(x0, noise, sigma)).square().flatten(1).mean(1)
    reference = (estimate - x0).square().flatten(1).mean(1)
    snr = schedule.snr(times)
    weighted = MinSNR(5.0)(snr, prediction) * error
    torch.testing.assert_close(weighted, snr.clamp(max=5.0) * reference, rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: p.name)
def test_min_snr_weights_at_the_extremes(prediction):
    snr = torch.tensor([0.0, 1e-38, 1e-9, 1e9, 1e38, math.inf])
    weight = MinSNR(5.0)(snr, prediction)
    expected = {
        "epsilon": [1.0, 1.0, 1.0, 5e-9, 5e-38, 0.0],
        "v": [0.0, 0.0, 1e-9, 5e-9, 5e-38, 0.0],
        "x0": [0.0, 0.0, 1e-9, 5.0, 5.0, 5.0],
    }[prediction.name]
    torch.testing.assert_close(weight, torch.tensor(expected), rtol=1e-5, atol=1e-37)


def test_batch_normalised_min_snr():
    snr = torch.tensor([0.5, 2.5, 5.0, 500.0])
    weight = BatchNormalisedMinSNR(5.0)(snr, Epsilon())
    torch.testing.assert_close(weight, torch.tensor([0.5, 2.5, 5.0, 5.0]) / 3.25)
    assert torch.equal(weight, BatchNormalisedMinSNR(5.0)(snr, Velocity()))
    silent = BatchNormalisedMinSNR()(torch.zeros(3), Epsilon())
    torch.testing.assert_close(silent, torch.ones(3))


def test_uniform_weighting_is_one():
    assert torch.equal(UniformWeighting()(torch.tensor([0.0, 7.0]), Epsilon()), torch.ones(2))


@pytest.mark.parametrize("kind", [MinSNR, BatchNormalisedMinSNR])
@pytest.mark.parametrize("gamma", [0.0, -1.0, math.nan, math.inf])
def test_bad_gamma(kind, gamma):
    with pytest.raises(ValueError, match="gamma must be positive and finite"):
        kind(gamma)
