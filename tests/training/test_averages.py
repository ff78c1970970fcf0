"""Averages over the steps: by hand, by the paper's numbers, and put together afterwards."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import integrate
from torch import nn

from liquid_ode.training import CheckpointError, Interrupted, Reporter, TrainConfig, load_run, train
from liquid_ode.training.averages import (
    averaged,
    gamma_of,
    length_of,
    name_of,
    power_averaged,
    reconstruction,
    warmed_up_decay,
)
from tests.training.tiny import Stopper, to, weights


def walk(steps: int) -> torch.Tensor:
    """Weights of each step (steps, 8) that drift and jitter as those of a network do."""
    generator = torch.Generator().manual_seed(0)
    jumps = torch.randn(steps, 8, generator=generator, dtype=torch.float64)
    return (jumps / torch.arange(1, steps + 1).sqrt()[:, None]).cumsum(0) + 0.1 * jumps


def follow(ema: nn.Module, model: nn.Linear, weights: torch.Tensor) -> None:
    with torch.no_grad():
        model.weight.copy_(weights[None])
    ema.update_parameters(model)  # type: ignore[operator]


def test_the_average_is_what_it_is_by_hand() -> None:
    model = nn.Linear(2, 1)
    ema = averaged(model, decay=0.3)
    expected = None
    for update in range(5):
        with torch.no_grad():
            model.weight.copy_(torch.randn(1, 2))
        ema.update_parameters(model)
        weight = model.weight.detach().clone()
        decay = min(0.3, (1 + update) / (10 + update))
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
        torch.testing.assert_close(ema.module.weight.detach(), expected)
    assert not ema.module.weight.requires_grad


def test_the_decay_warms_up_to_its_value() -> None:
    assert warmed_up_decay(0.999, 0) == 0.1
    assert warmed_up_decay(0.999, 90) == 0.91
    assert warmed_up_decay(0.999, 10**6) == 0.999


@pytest.mark.parametrize(("length", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_exponents_are_those_of_the_paper(length: float, gamma: float) -> None:
    assert gamma_of(length) == pytest.approx(gamma, abs=0.005)
    # The standard deviation of the density s^gamma on [0, 1], by quadrature.
    g = gamma_of(length)
    mass, mean, square = (integrate.quad(lambda s, k=k: s ** (g + k), 0, 1)[0] for k in (0, 1, 2))
    assert np.sqrt(square / mass - (mean / mass) ** 2) == pytest.approx(length, rel=1e-9)


def test_a_length_out_of_range_is_refused() -> None:
    for length in (0.0, 0.3, -1.0):
        with pytest.raises(ValueError, match="must lie in"):
            gamma_of(length)
    with pytest.raises(ValueError, match=r"each of ema_lengths must be less than 0\.288"):
        TrainConfig(ema_lengths=[0.05, 0.5])
    with pytest.raises(ValueError, match="ema_lengths must differ"):
        TrainConfig(ema_lengths=[0.05, 0.05])
    assert length_of(name_of(0.05)) == 0.05
    assert length_of("ema") is length_of("ema-") is length_of("ema-x") is None


def test_the_power_average_weighs_the_steps_by_the_power() -> None:
    model = nn.Linear(8, 1, bias=False).double()
    ema, seen = power_averaged(model, 0.1), walk(200)
    for weights_of_step in seen:
        follow(ema, model, weights_of_step)
    power = gamma_of(0.1) + 1
    edges = (torch.arange(201, dtype=torch.float64) / 200) ** power
    expected = (edges.diff()[:, None] * seen).sum(0)
    torch.testing.assert_close(ema.module.weight.detach()[0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wanted", [0.03, 0.07, 0.12, 0.2])
def test_any_length_comes_out_of_two(wanted: float) -> None:
    steps, every, lengths = 2000, 50, (0.05, 0.1)
    model = nn.Linear(8, 1, bias=False).double()
    emas = {length: power_averaged(model, length) for length in (*lengths, wanted)}
    kept: list[tuple[int, float]] = []
    values: list[torch.Tensor] = []
    for step, weights_of_step in enumerate(walk(steps), start=1):
        for ema in emas.values():
            follow(ema, model, weights_of_step)
        if step % every == 0:
            for length in lengths:
                kept.append((step, length))
                values.append(emas[length].module.weight.detach().clone())
    coefficients = reconstruction(kept, (steps, wanted))
    assert sum(coefficients) == pytest.approx(1)
    made = sum(c * value for c, value in zip(coefficients, values, strict=True))
    true = emas[wanted].module.weight.detach()
    other = min(float((emas[k].module.weight.detach() - true).norm()) for k in lengths)
    assert float((made - true).norm()) < 0.02 * other  # no mere neighbour
    exact = reconstruction(kept, (steps, 0.1))
    assert exact[-1] == pytest.approx(1, abs=1e-3)


def test_a_run_keeps_its_averages_and_makes_others_afterwards(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        config, samples=0, ema_lengths=[0.05, 0.1, 0.15], snapshot_every=4, lr=5e-3, epochs=10,
        model="unet", model_options={"widths": [8]},
    )  # fmt: skip
    plain = train(to(config, tmp_path / "plain", ema_lengths=[]), reporter=Reporter())
    run = train(config, reporter=Reporter())
    assert weights(run) == weights(plain)  # the others change nothing
    true = load_run(run, weights="ema-0.15", device="cpu").model.state_dict()
    assert (run / "ema-0.15.safetensors").is_file()
    # The same length made of the two others, and of the steps that were kept.
    (run / "ema-0.15.safetensors").unlink()
    made = load_run(run, weights="ema-0.15", device="cpu").model.state_dict()
    near = load_run(run, weights="ema-0.1", device="cpu").model.state_dict()
    assert max(float((made[k] - true[k]).abs().max()) for k in true) < 0.05 * max(
        float((near[k] - true[k]).abs().max()) for k in true
    )
    with pytest.raises(Interrupted):
        train(to(config, tmp_path / "cut"), reporter=Stopper(5))
    train(resume=tmp_path / "cut", reporter=Reporter())
    for name in ("ema-0.05", "ema-0.1"):
        one, two = (load_file(r / f"{name}.safetensors") for r in (run, tmp_path / "cut"))
        assert all(torch.equal(one[k], two[k]) for k in one)
    with pytest.raises(
        CheckpointError, match=r"there are no such averages at 15 steps\. Train wit"
    ):
        load_run(plain, weights="ema-0.2")
