"""Sequences that are sampled irregularly: a pendulum that is simulated, and scanned digits."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import torch
from torch import Tensor

from liquid_ode.data import DataError
from solvers import Solver

S = TypeVar("S", bound="Sequences")


@dataclass(frozen=True, eq=False)  # eq: tensors do not compare to one bool
class Sequences:
    """Sequences of observations, each of which holds for some time, and what to learn of them.

    Args:
        inputs: ``(N, T, I)``, zeros after a sequence's end.
        durations: ``(N, T)``, the time from each observation to the next; zeros after the end.
        targets: float ``(N, T, O)``, one for the end of each duration; or int64 ``(N,)``, a
            class of the whole sequence.
        lengths: int64 ``(N,)``, the observations of each sequence, from 1 to T.

    Raises:
        ValueError: a shape or a number is not as described.
    """

    inputs: Tensor
    durations: Tensor
    targets: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if self.inputs.ndim != 3:
            raise ValueError(f"inputs must have shape (N, T, I), not {tuple(self.inputs.shape)}")
        count, steps = self.inputs.shape[:2]
        if self.durations.shape != (count, steps):
            raise ValueError(
                f"durations must have shape {(count, steps)}, not {tuple(self.durations.shape)}"
            )
        _check_durations(self.durations)
        of_all = self.targets.dtype == torch.int64
        if self.targets.shape[: 1 if of_all else 2] != ((count,) if of_all else (count, steps)):
            raise ValueError(
                f"targets must be int64 of shape {(count,)} or floats of shape "
                f"{(count, steps)} and their features, not {tuple(self.targets.shape)}"
            )
        if self.lengths.shape != (count,):
            raise ValueError(f"lengths must have shape {(count,)}, not {tuple(self.lengths.shape)}")
        if count and not 1 <= int(self.lengths.min()) <= int(self.lengths.max()) <= steps:
            raise ValueError(
                f"every length must lie in 1..{steps}, the steps of inputs, not between "
                f"{int(self.lengths.min())} and {int(self.lengths.max())}: leave out sequences "
                "without an observation"
            )

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def select(self: S, which: Tensor | slice) -> S:
        """Some of the sequences, in the order given."""
        parts = {field.name: getattr(self, field.name)[which] for field in fields(self)}
        return type(self)(**parts)


def _check_durations(durations: Tensor) -> None:
    bad = ~((durations >= 0) & durations.isfinite())
    if bool(bad.any()):
        places = bad.nonzero()
        first = tuple(places[0].tolist())
        raise ValueError(
            f"every duration must be finite and at least 0, but {len(places)} of "
            f"{durations.numel()} are not, the first of them {durations[first].item()} at {first}: "
            "give each observation the time from it to the next one, of times in ascending "
            "order, and 0 after the end of a sequence"
        )


@dataclass(frozen=True, eq=False)
class Splits(Generic[S]):
    """To train on, to choose settings by, and to report; no sequence is in two of them."""

    train: S
    validation: S
    test: S


def split(
    sequences: S, *, validation: int, test: int, together: int = 1, seed: int = 0
) -> Splits[S]:
    """Divide at random: what is not for validation or testing is to train on.

    Args:
        sequences: in groups of ``together`` that follow each other and stay in one part, such as
            several readings of one digit.
        validation: groups to choose settings by.
        test: groups to report.
        together: sequences of a group.
        seed: of the division.

    Raises:
        ValueError: a number is below 1, or nothing would be left to train on.
    """
    if together < 1 or len(sequences) % together:
        raise ValueError(f"{len(sequences)} sequences do not make groups of {together}")
    groups = len(sequences) // together
    left = groups - validation - test
    if min(validation, test, left) < 1:
        raise ValueError(
            f"{groups} groups of sequences do not divide into {validation} for validation, {test} "
            "for testing and at least 1 to train on"
        )
    order = torch.randperm(groups, generator=torch.Generator().manual_seed(seed))
    rows = order.unsqueeze(1) * together + torch.arange(together)  # (groups, together)
    parts = [part.flatten() for part in rows.split([left, validation, test])]
    return Splits(*(sequences.select(part) for part in parts))


@dataclass(frozen=True)
class Pendulum:
    """A damped pendulum: dθ/dt = ω, dω/dt = -(g/l) sin θ - c ω. A field for any solver.

    Args:
        gravity: g, m/s².
        length: l, m.
        damping: c, 1/s.

    Raises:
        ValueError: gravity or length is not positive, or damping is negative.
    """

    gravity: float = 9.81
    length: float = 1.0
    damping: float = 0.2

    def __post_init__(self) -> None:
        if not (self.gravity > 0 and self.length > 0 and self.damping >= 0):
            raise ValueError(
                "a pendulum needs gravity > 0, length > 0 and damping >= 0, not "
                f"{self.gravity}, {self.length} and {self.damping}"
            )

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """The rate of change of y ``(B, 2)``: θ in rad and ω in rad/s."""
        angle, velocity = y.unbind(-1)
        pull = self.gravity / self.length * torch.sin(angle)
        return torch.stack([velocity, -pull - self.damping * velocity], dim=-1)

    def energy(self, y: Tensor) -> Tensor:
        """Kinetic and potential energy of y ``(..., 2)``, in J per kg: 0 at rest, below 2 g l
        wherever it does not turn over."""
        angle, velocity = y.unbind(-1)
        kinetic = (self.length * velocity).square() / 2
        return kinetic + self.gravity * self.length * (1 - torch.cos(angle))

    def starts(self, count: int, generator: torch.Generator) -> Tensor:
        """Random states that swing and do not turn over, float64 ``(count, 2)``.

        The energy is uniform from a tenth to 95% of what it takes to turn over, and the angle
        uniform over those that the energy reaches.
        """
        share, place, sign = torch.rand(3, count, generator=generator, dtype=torch.float64)
        share = 0.1 + 0.85 * share
        angle = (2 * place - 1) * torch.arccos(1 - 2 * share)
        kinetic = 2 * share - (1 - torch.cos(angle))  # in units of g l
        velocity = torch.sqrt(2 * self.gravity / self.length * kinetic.clamp(min=0))
        return torch.stack([angle, torch.where(sign < 0.5, -velocity, velocity)], dim=-1)


@dataclass(frozen=True, eq=False)
class PendulumSequences(Sequences):
    """Noisy angles of a pendulum, and its true angle when the next one is observed.

    Args:
        states: float64 ``(N, T + 1, 2)``, the true θ in rad and ω in rad/s at every observation,
            and at the last target.
    """

    states: Tensor


def observe_pendulum(
    pendulum: Pendulum,
    count: int,
    *,
    solver: Solver,
    steps: int = 32,
    gaps: tuple[float, float] = (0.05, 1.0),
    noise: float = 0.1,
    seed: int = 0,
) -> PendulumSequences:
    """Swings of a pendulum, observed with noise at irregular times.

    An input is an angle in rad with Gaussian noise; the velocity is never seen. Its target is the
    angle without noise at the time of the next observation.

    Args:
        pendulum: what swings.
        count: swings, each from a start of its own.
        solver: of the swings, in float64: one that takes times ``(M, B)``, with tolerances far
            below ``noise``.
        steps: observations of each swing.
        gaps: the shortest and the longest time between two observations, s; log-uniform.
        noise: standard deviation of an observation, rad.
        seed: of all that is drawn.

    Raises:
        ValueError: a number is out of range.
        SolverError: the solver fails.
    """
    low, high = gaps
    if count < 1 or steps < 1:
        raise ValueError(f"count and steps must be at least 1, not {count} and {steps}")
    if not (0 < low <= high < math.inf and 0 <= noise < math.inf):
        raise ValueError(
            "gaps must be two times, 0 < shortest <= longest, and noise at least 0, not "
            f"{gaps} and {noise}"
        )
    generator = torch.Generator().manual_seed(seed)
    start = pendulum.starts(count, generator)
    drawn = torch.rand(count, steps, generator=generator, dtype=torch.float64)
    durations = low * (high / low) ** drawn
    times = torch.cat([torch.zeros_like(durations[:, :1]), durations.cumsum(1)], dim=1)
    span = (0.0, float(times.max()))
    states = solver.solve(pendulum, start, span, t_eval=times.t()).ys  # (T + 1, N, 2)
    if states is None:
        raise ValueError(f"the solver {solver!r} does not return states at the times asked for")
    states = states.transpose(0, 1)
    angles = states[:, :, :1]
    seen = angles[:, :-1]
    seen = seen + noise * torch.randn(seen.shape, generator=generator, dtype=torch.float64)
    return PendulumSequences(
        inputs=seen.float(),
        durations=durations.float(),
        targets=angles[:, 1:].float(),
        lengths=torch.full((count,), steps),
        states=states,
    )


def irregular_digits(*, keep: float = 0.5, copies: int = 1, seed: int = 0) -> Sequences:
    """The 1,797 handwritten digits of scikit-learn, read row by row, with rows missing.

    Of the 8 rows of 8 pixels (0 to 1) the first is always there, each other one with probability
    ``keep``. A row holds until the next one that is there, so the durations, which sum to 8, are
    all that tells where on the page it lies. The target is the digit.

    Args:
        keep: probability that a row is there.
        copies: readings of each image, each with its own rows missing; they follow each other,
            and belong into one part of a :func:`split`.
        seed: of what is missing.

    Source: E. Alpaydin & C. Kaynak, Optical recognition of handwritten digits, UCI repository,
    1998; the test part of it.

    Raises:
        DataError: scikit-learn is not installed.
        ValueError: ``keep`` is outside (0, 1], or ``copies`` below 1.
    """
    if not 0 < keep <= 1 or copies < 1:
        raise ValueError(
            f"keep must lie in (0, 1] and copies be at least 1, not {keep} and {copies}"
        )
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        ) from error
    found = load_digits()
    images = torch.from_numpy(found.images).float() / 16  # (N, 8, 8)
    images = images.repeat_interleave(copies, 0)
    count, rows = images.shape[:2]
    there = torch.rand(count, rows, generator=torch.Generator().manual_seed(seed)) < keep
    there[:, 0] = True
    # The rows that are there, in their order; after them ``rows``, the padding.
    places = torch.where(there, torch.arange(rows), rows).sort(dim=1).values  # (N, 8)
    ends = torch.full_like(places[:, :1], rows)
    inputs = images.gather(1, places.clamp(max=rows - 1).unsqueeze(-1).expand_as(images))
    return Sequences(
        inputs=inputs.masked_fill((places == rows).unsqueeze(-1), 0.0),
        durations=torch.cat([places, ends], dim=1).diff(dim=1).float(),
        targets=torch.from_numpy(found.target).long().repeat_interleave(copies),
        lengths=there.sum(1),
    )
