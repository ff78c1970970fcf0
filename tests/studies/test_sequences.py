"""Irregular sequences: the pendulum against SciPy, the digits against scikit-learn's images."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import solvers
from liquid_ode.data import DataError
from studies.sequences import (
    Pendulum,
    PendulumSequences,
    Sequences,
    irregular_digits,
    observe_pendulum,
    split,
)

ACCURATE = solvers.DormandPrince(step_size=solvers.PID(rtol=1e-9, atol=1e-9))


def swings(count: int = 64, **settings: object) -> PendulumSequences:
    pendulum = settings.pop("pendulum", Pendulum())
    assert isinstance(pendulum, Pendulum)
    return observe_pendulum(pendulum, count, solver=ACCURATE, **settings)  # type: ignore[arg-type]


def test_the_pendulum_is_that_of_scipy() -> None:
    found = swings(5, steps=12, seed=3)
    for states, durations in zip(found.states, found.durations, strict=True):
        times = np.concatenate([[0.0], durations.double().cumsum(0).numpy()])
        oracle = solve_ivp(
            lambda t, y: [y[1], -9.81 * math.sin(y[0]) - 0.2 * y[1]],
            (0.0, times[-1]), states[0].numpy(), method="DOP853", t_eval=times, rtol=1e-11,
            atol=1e-12,
        )  # fmt: skip
        # The durations are kept in float32, which moves a time by some 1e-7 s.
        np.testing.assert_allclose(states.numpy(), oracle.y.T, rtol=0, atol=2e-5)


def test_energy_is_kept_without_damping_and_lost_with_it() -> None:
    free = Pendulum(gravity=2.0, length=0.5, damping=0.0)
    kept = free.energy(swings(pendulum=free).states)
    torch.testing.assert_close(kept, kept[:, :1].expand_as(kept), rtol=1e-6, atol=1e-7)
    lost = Pendulum().energy(swings().states)
    assert bool((lost.diff(dim=1) < 0).all())


def test_starts_cover_energies_below_turning_over() -> None:
    pendulum = Pendulum(gravity=3.0, length=2.0)
    starts = pendulum.starts(4000, torch.Generator().manual_seed(0))
    share = pendulum.energy(starts) / (2 * 3.0 * 2.0)
    assert float(share.min()) >= 0.1 - 1e-9
    assert float(share.max()) <= 0.95 + 1e-9
    assert float(share.mean()) == pytest.approx(0.525, abs=0.02)
    for column in starts.unbind(1):
        assert float((column > 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(swings(500).states[..., 0].abs().max()) < math.pi


def test_observations_are_irregular_noisy_and_followed_by_the_target() -> None:
    found = swings(400, steps=20, gaps=(0.1, 0.9), noise=0.25)
    assert found.inputs.shape == found.targets.shape == (400, 20, 1)
    assert found.lengths.tolist() == [20] * 400
    assert 0.1 - 1e-6 <= float(found.durations.min()) < 0.11
    assert 0.85 < float(found.durations.max()) <= 0.9 + 1e-6
    assert float(found.durations.log().mean().exp()) == pytest.approx(0.3, rel=0.03)
    noise = found.inputs.double() - found.states[:, :-1, :1]
    assert float(noise.std()) == pytest.approx(0.25, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert torch.equal(found.targets, found.states[:, 1:, :1].float())
    clean = swings(400, steps=20, gaps=(0.1, 0.9), noise=0)
    assert torch.equal(clean.states, found.states)
    assert torch.equal(clean.inputs[:, 1:], clean.targets[:, :-1])


def equal(one: Sequences, other: Sequences) -> bool:
    names = [field.name for field in dataclasses.fields(one)]
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_a_seed_gives_the_same_again() -> None:
    assert equal(swings(seed=1), swings(seed=1))
    assert not equal(swings(seed=1), swings(seed=2))
    assert equal(irregular_digits(seed=1), irregular_digits(seed=1))
    assert not equal(irregular_digits(seed=1), irregular_digits(seed=2))


def images() -> tuple[Tensor, Tensor]:
    found = pytest.importorskip("sklearn.datasets").load_digits()
    return torch.from_numpy(found.images).float() / 16, torch.from_numpy(found.target)


def test_digits_are_rows_where_the_durations_put_them() -> None:
    whole, labels = images()
    found = irregular_digits(keep=0.5, copies=3)
    assert torch.equal(found.targets, labels.long().repeat_interleave(3))
    assert torch.equal(found.durations.sum(1), torch.full((len(found),), 8.0))
    assert float(found.lengths.double().mean()) == pytest.approx(1 + 7 * 0.5, abs=0.05)
    for index in range(0, 600, 7):
        length = int(found.lengths[index])
        durations = found.durations[index]
        places = (durations.cumsum(0) - durations)[:length].long()
        assert places[0] == 0
        assert bool((durations[:length] > 0).all())
        assert torch.equal(found.inputs[index, :length], whole[index // 3, places])
        assert not found.inputs[index, length:].any()
        assert not durations[length:].any()
    copies = found.durations.view(-1, 3, 8)
    assert float((copies[:, 0] != copies[:, 1]).any(1).double().mean()) > 0.9


def test_digits_with_every_row() -> None:
    found = irregular_digits(keep=1.0)
    assert torch.equal(found.inputs, images()[0])
    assert bool((found.durations == 1).all())


def numbered(count: int) -> Sequences:
    """Sequences that carry their own number."""
    number = torch.arange(count)
    return Sequences(
        torch.zeros(count, 2, 1), torch.ones(count, 2), number, torch.full_like(number, 2)
    )


def test_a_split_shares_nothing_and_loses_nothing() -> None:
    parts = split(numbered(60), validation=4, test=5, together=3, seed=1)
    ids = [part.targets for part in (parts.train, parts.validation, parts.test)]
    assert [len(part) for part in ids] == [33, 12, 15]
    assert torch.equal(torch.cat(ids).sort().values, torch.arange(60))
    groups = [set((part // 3).tolist()) for part in ids]
    assert [len(group) for group in groups] == [11, 4, 5]  # so no group is in two parts
    assert not torch.equal(parts.test.targets.sort().values, torch.arange(45, 60))
    again, other = (split(numbered(60), validation=4, test=5, together=3, seed=s) for s in (1, 2))
    assert torch.equal(parts.test.targets, again.test.targets)
    assert not torch.equal(parts.test.targets, other.test.targets)


def test_no_swing_is_in_two_parts() -> None:
    parts = split(swings(40), validation=10, test=10)
    starts = [part.states[:, 0] for part in (parts.train, parts.validation, parts.test)]
    assert len({tuple(start.tolist()) for start in torch.cat(starts)}) == 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 0, "test": 5}, "do not divide"),
        ({"validation": 5, "test": 5}, "do not divide into 5"),
        ({"validation": 1, "test": 1, "together": 3}, "groups of 3"),
        ({"validation": 1, "test": 1, "together": 0}, "groups of 0"),
    ],
)
def test_a_split_that_cannot_be(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(numbered(10), **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": torch.zeros(3, 4)}, r"\(N, T, I\)"),
        ({"durations": torch.zeros(3, 5)}, r"durations must have shape \(3, 4\)"),
        (
            {"durations": torch.tensor([[1.0, 0, 1, 1], [1, -2.5, 1, 1], [torch.inf, 1, 1, 1]])},
            r"at least 0, but 2 of 12 are not, the first of them -2\.5 at \(1, 1\): give each",
        ),
        ({"durations": torch.full((3, 4), torch.nan)}, r"12 of 12 .* nan at \(0, 0\): "),
        ({"targets": torch.zeros(3, 5, 1)}, "targets must be"),
        ({"targets": torch.zeros(4, dtype=torch.int64)}, "targets must be"),
        ({"lengths": torch.ones(2, dtype=torch.int64)}, "lengths must have shape"),
        ({"lengths": torch.tensor([1, 0, 4])}, r"1\.\.4, .* not between 0 and 4"),
        ({"lengths": torch.tensor([1, 5, 4])}, r"1\.\.4, .* not between 1 and 5"),
    ],
)
def test_sequences_that_do_not_fit(changes: dict[str, Tensor], message: str) -> None:
    parts = {
        "inputs": torch.zeros(3, 4, 2),
        "durations": torch.ones(3, 4),
        "targets": torch.zeros(3, 4, 1),
        "lengths": torch.tensor([4, 1, 2]),
    }
    assert len(Sequences(**parts)) == 3
    with pytest.raises(ValueError, match=message):
        Sequences(**{**parts, **changes})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count and steps"),
        ({"steps": 0}, "count and steps"),
        ({"gaps": (0.0, 1.0)}, "gaps must be"),
        ({"gaps": (1.0, 0.5)}, "gaps must be"),
        ({"noise": -0.1}, "noise at least 0"),
        ({"noise": math.nan}, "noise at least 0"),
    ],
)
def test_observations_that_cannot_be(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        swings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"gravity": 0}, {"length": -1}, {"damping": -0.1}])
def test_a_pendulum_that_cannot_be(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a pendulum needs"):
        Pendulum(**settings)


@pytest.mark.parametrize("settings", [{"keep": 0.0}, {"keep": 1.1}, {"copies": 0}])
def test_digits_that_cannot_be(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="keep must lie in"):
        irregular_digits(**settings)  # type: ignore[arg-type]


def test_digits_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        irregular_digits()
