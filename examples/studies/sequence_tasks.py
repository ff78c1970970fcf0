"""The tasks of fit_sequence.py: their data, what is measured of a prediction, and the pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import solvers
from liquid_ode.cells import LiquidCell
from studies import sequence_plots as plots
from studies.sequences import (
    Pendulum,
    PendulumSequences,
    Sequences,
    Splits,
    irregular_digits,
    observe_pendulum,
    split,
)

PENDULUM = Pendulum()
ACCURATE = solvers.DormandPrince(step_size=solvers.PID(rtol=1e-9, atol=1e-9))


class Reader(nn.Module):
    """A network, and a linear map of its state at the end of every duration."""

    def __init__(self, network: nn.Module, hidden: int, outputs: int, same: float | None) -> None:
        super().__init__()
        self.network = network
        self.readout = nn.Linear(hidden, outputs)
        self.same = same  # stands for every duration, if not None

    def forward(self, x: Tensor, durations: Tensor) -> Tensor:
        if self.same is not None:
            durations = torch.full_like(durations, self.same)
        states, _ = self.network(x, durations=durations)
        return self.readout(states)  # (B, T, outputs)


Models = Mapping[str, Reader]


class Task(ABC):
    """Data to learn, and what is measured of predictions ``(B, T, outputs)``."""

    name: ClassVar[str]
    about: ClassVar[str]
    measure: ClassVar[str]  # the error, with its unit
    outputs: ClassVar[int]
    epochs: ClassVar[int]

    def __init__(self, data: Splits[Any], reference: str) -> None:
        self.data = data
        self.reference = reference  # an error to compare with

    @abstractmethod
    def loss(self, predicted: Tensor, batch: Sequences) -> Tensor:
        """What training lowers."""

    @abstractmethod
    def error(self, predicted: Tensor, batch: Sequences) -> float:
        """What is reported."""

    @abstractmethod
    def draw(self, models: Models, output: Path) -> Iterator[Path]:
        """Make the pictures, of test sequences."""


class PendulumTask(Task):
    """Forecast the angle at the time of the next observation."""

    name = "pendulum"
    about = (
        "a damped pendulum: its true angle at the time of the next observation, from angles\n"
        "with noise of 0.1 rad at 32 times 0.05 to 1 s apart"
    )
    measure = "RMSE, rad"
    outputs = 1
    epochs = 25

    UNSCORED = 4  # observations before which the velocity is hardly known

    def __init__(self, size: int | None = None) -> None:
        swings = observe_pendulum(PENDULUM, (size or 1024) + 256 + 512, solver=ACCURATE)
        data = split(swings, validation=256, test=512)
        held = self.error(data.test.inputs, data.test)
        super().__init__(data, f"the last observation as the forecast: {held:.3f}")

    def loss(self, predicted: Tensor, batch: Sequences) -> Tensor:
        return F.mse_loss(predicted[:, self.UNSCORED :], batch.targets[:, self.UNSCORED :])

    def error(self, predicted: Tensor, batch: Sequences) -> float:
        return float(self.loss(predicted, batch).sqrt())

    @torch.no_grad()
    def draw(self, models: Models, output: Path) -> Iterator[Path]:
        test = self.data.test
        order = PENDULUM.energy(test.states[:, 0]).argsort()
        swings = [
            test.select(order[place : place + 1]) for place in (len(test) // 2, len(test) - 1)
        ]
        timed = {name: model for name, model in models.items() if model.same is None}
        yield plots.plot_tracking(
            [tracking(swing, timed) for swing in swings],
            output / "pendulum_forecasts.png",
            value="angle, rad",
            heading="A middling and the widest swing of the test set. Dots: noisy observations; "
            "grey: the truth; lines: forecasts from the dots before them",
        )
        yield plots.plot_lines(
            {name: self.by_gap(model) for name, model in models.items()},
            output / "pendulum_error_by_gap.png",
            axis="time to the next observation, s",
            value="RMSE of the forecast, rad",
            heading="Error of the forecast by how far it looks ahead, test set",
        )
        yield from time_constants(
            models, swings[0], output / "pendulum_time_constants.png", "observed\nangle, rad", "s"
        )

    def by_gap(self, model: nn.Module, groups: int = 8) -> plots.Curve:
        """The error at equally many of the shortest gaps, the next ones, ..."""
        test = self.data.test
        errors = (model(test.inputs, test.durations) - test.targets)[:, self.UNSCORED :].flatten()
        gaps, order = test.durations[:, self.UNSCORED :].flatten().sort()
        parts = zip(gaps.chunk(groups), errors[order].chunk(groups), strict=True)
        found = [(gap.median(), error.square().mean().sqrt()) for gap, error in parts]
        return plots.Curve(*torch.tensor(found).unbind(1))


def tracking(swing: PendulumSequences, models: Models) -> plots.Tracking:
    """One swing: its truth, solved anew between the observations, and the models' forecasts."""
    ends = swing.durations[0].cumsum(0)
    times = torch.linspace(0, float(ends[-1]), 600, dtype=torch.float64)
    found = ACCURATE.solve(PENDULUM, swing.states[:, 0], (0.0, float(times[-1])), t_eval=times)
    seen = plots.Curve(ends - swing.durations[0], swing.inputs[0, :, 0])
    curves = {name: forecast(model, swing) for name, model in models.items()}
    assert found.ys is not None  # since t_eval is given
    return plots.Tracking(plots.Curve(times, found.ys[:, 0, 0]), seen, curves)


def forecast(model: nn.Module, swing: Sequences, parts: int = 12) -> plots.Curve:
    """What a model says between the observations: each duration cut short at several times."""
    steps = swing.inputs.shape[1]
    step = torch.arange(steps).repeat_interleave(parts + 1)  # (steps * (parts + 1),)
    share = (torch.arange(parts + 1) / parts).repeat(steps)
    durations = swing.durations.repeat(len(step), 1)
    durations[torch.arange(len(step)), step] *= share
    values = model(swing.inputs.expand(len(step), -1, -1), durations)
    values = values[torch.arange(len(step)), step, 0].view(steps, parts + 1)
    begins = (swing.durations[0].cumsum(0) - swing.durations[0])[step]
    times = (begins + share * swing.durations[0, step]).view(steps, parts + 1)
    breaks = torch.full((steps, 1), torch.nan)
    return plots.Curve(
        torch.cat([times, breaks], 1).flatten(), torch.cat([values, breaks], 1).flatten()
    )


class DigitsTask(Task):
    """Tell which digit it is."""

    name = "digits"
    about = (
        "handwritten digits, read row by row, of which each but the first is missing half the time"
    )
    measure = "misread, %"
    outputs = 10
    epochs = 8
    COPIES = 4  # readings of each image

    def __init__(self, size: int | None = None) -> None:
        digits = irregular_digits(keep=0.5, copies=self.COPIES)
        data = split(digits, validation=300, test=400, together=self.COPIES)
        if size is not None:
            data = Splits(data.train.select(slice(size)), data.validation, data.test)
        super().__init__(data, "guessing: 90")

    def loss(self, predicted: Tensor, batch: Sequences) -> Tensor:
        return F.cross_entropy(last(predicted, batch), batch.targets)

    def error(self, predicted: Tensor, batch: Sequences) -> float:
        wrong = last(predicted, batch).argmax(1) != batch.targets
        return 100 * float(wrong.double().mean())

    @torch.no_grad()
    def draw(self, models: Models, output: Path) -> Iterator[Path]:
        test = self.data.test
        chosen = [test.select(slice(index, index + 1)) for index in range(0, 16, 4)]
        timed = {name: model for name, model in models.items() if model.same is None}
        yield plots.plot_readings(
            [reading(digit, timed) for digit in chosen],
            output / "digits_readings.png",
            heading="Four test digits, rows missing where coloured: "
            "the probability of the right class as the rows pass",
        )
        yield from time_constants(
            models, chosen[0], output / "digits_time_constants.png", "pixel of\nthe row", "rows"
        )


def last(predicted: Tensor, batch: Sequences) -> Tensor:
    """What was predicted at the end of each sequence, ``(B, outputs)``."""
    return predicted[torch.arange(len(batch)), batch.lengths - 1]


def reading(digit: Sequences, models: Models) -> plots.Reading:
    """One digit: the rows that are there, and what the models make of them."""
    length, label = int(digit.lengths), int(digit.targets)
    ends = digit.durations[0, :length].cumsum(0)
    pixels = torch.full((8, 8), torch.nan)
    pixels[(ends - digit.durations[0, :length]).long()] = digit.inputs[0, :length]
    curves = {
        name: plots.Curve(
            ends, model(digit.inputs, digit.durations)[0, :length].softmax(1)[:, label]
        )
        for name, model in models.items()
    }
    return plots.Reading(pixels, str(label), curves)


def time_constants(
    models: Models, sequence: Sequences, path: Path, value: str, unit: str
) -> Iterator[Path]:
    """The time constants of the first liquid cell there is, under one sequence."""
    cells = [part for model in models.values() for part in model.modules()]
    cell = next((part for part in cells if isinstance(part, LiquidCell)), None)
    if cell is not None:
        length = int(sequence.lengths)
        inputs = sequence.inputs[0, :length]
        yield plots.plot_time_constants(
            inputs, sequence.durations[0, :length], cell.time_constant(inputs), path,
            value=value, unit=unit,
            heading="Time constants of a trained LiquidCell under the input that drives them",
        )  # fmt: skip


TASKS: dict[str, type[PendulumTask | DigitsTask]] = {
    task.name: task for task in (PendulumTask, DigitsTask)
}
