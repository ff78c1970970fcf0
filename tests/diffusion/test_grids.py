"""The grids of noise levels, against formulas in NumPy, and what they refuse."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from liquid_ode.diffusion import (
    DDIM,
    CosineSchedule,
    DPMSolver,
    KarrasGrid,
    KarrasHeun,
    LinearSchedule,
    LogSNRGrid,
    SigmaList,
    TimeList,
    TrailingGrid,
)

COSINE, LINEAR = CosineSchedule(), LinearSchedule()
GRIDS = [
    TrailingGrid(7),
    TrailingGrid(20, sigma_max=15.0),
    TrailingGrid(None),
    KarrasGrid(1),
    KarrasGrid(18),
    KarrasGrid(10, rho=3.0, sigma_max=math.inf, sigma_min=0.1),
    LogSNRGrid(1),
    LogSNRGrid(30, sigma_max=8.0),
    TimeList([999, 500, 3]),
    SigmaList([80.0, 2.0, 0.1]),
]


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=["cosine", "linear"])
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_levels_decrease_and_are_those_of_the_schedule(grid, schedule):
    levels = grid.levels(schedule)
    low, high = schedule.sigmas[0].item(), schedule.sigmas[-1].item()
    for before, after in pairwise(levels):
        assert after.sigma < before.sigma
        assert after.t < before.t
    assert levels[0].sigma <= high
    assert levels[-1].sigma >= low
    for level in levels:  # t and σ say the same
        t = schedule.time_of_sigma(torch.tensor([level.sigma], dtype=torch.float64))
        assert level.t == pytest.approx(t.item(), abs=1e-3)
    assert hash(grid) == hash(grid)  # a value


def test_the_karras_grid_is_that_of_edm():
    # NVlabs/edm, generate.py, in NumPy
    i, rho, low, high = np.arange(18), 7, 0.02, 50.0
    expected = (high ** (1 / rho) + i / 17 * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    levels = KarrasGrid(18, sigma_max=high, sigma_min=low).levels(COSINE)
    assert [level.sigma for level in levels] == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_log_snr_grid_has_equal_ratios():
    sigmas = [level.sigma for level in LogSNRGrid(9, sigma_max=20.0).levels(LINEAR)]
    assert sigmas[0] == pytest.approx(20.0)
    assert sigmas[-1] == pytest.approx(LINEAR.sigmas[0].item())
    ratios = [a / b for a, b in pairwise(sigmas)]
    assert ratios == pytest.approx([ratios[0]] * 8, rel=1e-4)


def test_a_start_at_less_noise_keeps_the_number_of_steps():
    levels = TrailingGrid(50, sigma_max=15.0).levels(COSINE)
    assert len(levels) == 50
    assert levels[0].sigma <= 15.0 < COSINE.sigma(levels[0].t + 1).item()
    assert TrailingGrid(50, sigma_max=1e9).levels(COSINE) == TrailingGrid(50).levels(COSINE)
    assert len(TrailingGrid(None, sigma_max=15.0).levels(COSINE)) == levels[0].t + 1


def test_a_start_beyond_the_schedule_is_its_last_level():
    few = CosineSchedule(4, max_beta=0.5)
    for grid in (KarrasGrid(3), LogSNRGrid(3)):
        levels = grid.levels(few)
        assert levels[0].sigma == few.sigmas[-1].item()
        assert levels[-1].sigma == few.sigmas[0].item()


def test_levels_that_were_printed_are_taken_back():
    levels = [float(f"{level.sigma:.6g}") for level in KarrasGrid(9, sigma_max=1e9).levels(COSINE)]
    found = [level.sigma for level in SigmaList(levels).levels(COSINE)]
    assert found == pytest.approx(levels, rel=1e-5)


def test_a_list_may_be_a_tensor_or_an_array():
    assert TimeList(torch.tensor([9, 3])) == TimeList([9, 3]) == TimeList(np.array([9, 3]))
    assert SigmaList(torch.tensor([8.0, 0.5])) == SigmaList((8, 0.5))


@pytest.mark.parametrize("sampler", [DDIM, DPMSolver, KarrasHeun])
def test_every_sampler_takes_a_number_or_a_grid(sampler):
    assert len(sampler(5).grid.levels(COSINE)) == 5
    assert sampler(TimeList([700, 20])).grid == TimeList([700, 20])
    assert sampler(steps=KarrasGrid(4)).grid == KarrasGrid(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimeList([5, 9]), "times must decrease.* 5 is followed by 9"),
        (lambda: TimeList([5, 5]), "must decrease"),
        (lambda: TimeList([]), "at least one entry"),
        (lambda: TimeList([5.5, 2]), "whole time steps of at least 0, not 5.5"),
        (lambda: TimeList([5, -1]), "whole time steps of at least 0, not -1"),
        (lambda: TimeList(7), "times must be a list of numbers, not 7"),
        (lambda: TimeList([1000, 3]).levels(COSINE), r"lie in \[0, 999\].*got 1000"),
        (lambda: SigmaList([1.0, 2.0]), "sigmas must decrease"),
        (lambda: SigmaList([2.0, 0.0]), "positive numbers, not 0.0"),
        (lambda: SigmaList([math.nan]), "positive numbers, not nan"),
        (lambda: SigmaList([200.0, 1.0]).levels(LINEAR), "lie in .*got 200"),
        (lambda: SigmaList([1.0, 0.001]).levels(LINEAR), "lie in .*got 0.001"),
        (lambda: SigmaList([1.0, 1.0 - 1e-9]).levels(LINEAR), "the noise levels must decrease"),
        (lambda: TrailingGrid(0), "steps must be a whole number"),
        (lambda: TrailingGrid(1001).levels(COSINE), "steps must be at most 1000"),
        (lambda: TrailingGrid(50, sigma_max=0.02).levels(COSINE), "steps must be at most"),
        (lambda: TrailingGrid(1, sigma_max=1e-4).levels(COSINE), "sigma_max must be at least"),
        (lambda: TrailingGrid(5, sigma_max=-1.0), "sigma_max must be positive"),
        (lambda: KarrasGrid(5, sigma_max=math.nan), "sigma_max must be positive"),
        (lambda: KarrasGrid(5, rho=0), "rho must be positive"),
        (lambda: KarrasGrid(5, sigma_max=1.0, sigma_min=2.0).levels(COSINE), "at least sigma_min"),
        (lambda: KarrasGrid(5, sigma_min=-1.0), "sigma_min must be at least 0"),
        (lambda: LogSNRGrid(5, sigma_max=0.006).levels(COSINE), "the noise levels must decrease"),
        (lambda: LogSNRGrid(2.0), "steps must be a whole number"),
        (lambda: DDIM("many"), "steps must be a whole number"),
    ],
)
def test_bad_grids(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)
