"""What a run tells of itself while it goes on: to a person, or to code that is to act on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liquid_ode.diffusion import GaussianDiffusion
from liquid_ode.training.config import TrainConfig


@dataclass(frozen=True)
class Moment:
    """A run after one of its steps."""

    config: TrainConfig
    run_dir: Path
    step: int
    """optimizer steps made"""
    total_steps: int
    epoch: int
    """of that step, counted from 1"""
    loss: float
    """a running mean; at the end of an epoch the mean over it"""
    images_per_second: float
    """of all processes together"""
    diffusion: GaussianDiffusion
    """around the model that is being trained, in training mode"""
    averaged: GaussianDiffusion
    """around the averaged weights (``ema``), in evaluation mode"""


class Reporter:
    """Is told of a run, and does nothing: the base of progress bars and of callbacks.

    One with something to do overrides the methods of the moments it waits for. They are called in
    the main process alone, between two steps; what they draw at random, and the modes and weights
    they set, are theirs to put back. An exception ends the run, whose last checkpoint is whole:
    raised in ``epoch``, it ends the run with all of that epoch saved.
    """

    def start(self, facts: Mapping[str, str], moment: Moment) -> None:
        """The run is ready: its facts for people, and where it stands."""

    def step(self, moment: Moment) -> None:
        """A step has been made."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        """A line of ``metrics.jsonl`` has been written."""

    def checkpoint(self, moment: Moment, path: Path) -> None:
        """The state has been saved, in ``path``."""

    def epoch(self, moment: Moment) -> None:
        """An epoch has ended and is saved. (Told again where a run goes on right after one: then
        the loss is NaN, since it is known no more.)"""

    def note(self, text: str) -> None:
        """Something worth a line has happened."""

    def close(self) -> None:
        """The run has ended, in whatever way."""


class Reporters(Reporter):
    """Several, told one after the other."""

    def __init__(self, reporters: Iterable[Reporter]) -> None:
        self.reporters = tuple(reporters)

    def start(self, facts: Mapping[str, str], moment: Moment) -> None:
        for reporter in self.reporters:
            reporter.start(facts, moment)

    def step(self, moment: Moment) -> None:
        for reporter in self.reporters:
            reporter.step(moment)

    def metrics(self, record: Mapping[str, Any]) -> None:
        for reporter in self.reporters:
            reporter.metrics(record)

    def checkpoint(self, moment: Moment, path: Path) -> None:
        for reporter in self.reporters:
            reporter.checkpoint(moment, path)

    def epoch(self, moment: Moment) -> None:
        for reporter in self.reporters:
            reporter.epoch(moment)

    def note(self, text: str) -> None:
        for reporter in self.reporters:
            reporter.note(text)

    def close(self) -> None:
        for reporter in self.reporters:
            reporter.close()


class ConsoleReporter(Reporter):
    """Prints the facts and notes; shows progress as a bar, or as lines where there is no terminal.

    Args:
        interval: seconds between the lines of progress where there is no terminal.
    """

    def __init__(self, interval: float = 30.0) -> None:
        self._interval = interval
        self._bar: Any = None
        self._first = self._step = self._total = 0
        self._began = self._shown = 0.0

    def start(self, facts: Mapping[str, str], moment: Moment) -> None:
        first_step, total_steps = moment.step, moment.total_steps
        width = max(map(len, facts), default=0)
        _say("\n".join([*(f"{name:<{width}}  {value}" for name, value in facts.items()), ""]))
        self._first, self._step, self._total = first_step, first_step, total_steps
        self._began = self._shown = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total_steps,
                initial=first_step,
                dynamic_ncols=True,
                bar_format="{desc}{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}, "
                "{elapsed} gone, {remaining} left{postfix}",
            )

    def step(self, moment: Moment) -> None:
        self._step, now = moment.step, time.monotonic()
        if now - self._shown < (0.2 if self._bar is not None else self._interval):
            return
        self._shown = now
        epoch = f"{moment.epoch}/{moment.config.epochs}"
        speed = f"loss {moment.loss:.4f}, {moment.images_per_second:.0f} images/s"
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch}", refresh=False)
            self._bar.set_postfix_str(speed, refresh=False)
            with suppress(OSError):
                self._catch_up()
        else:
            pace = (now - self._began) / (self._step - self._first)
            left = duration(pace * (self._total - self._step))
            _say(f"epoch {epoch}, step {self._step:,} of {self._total:,}: {speed}, {left} left")

    def note(self, text: str) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._catch_up()
                self._bar.write(text)
        else:
            _say(text)

    def close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._catch_up()
                self._bar.close()
            self._bar = None

    def _catch_up(self) -> None:
        self._bar.update(self._step - self._bar.n)
        self._bar.refresh()


def _say(text: str) -> None:
    """Print a line; where the terminal has gone, that is no reason to end a training."""
    with suppress(OSError):
        print(text, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 8.2 s, 3 min 07 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
