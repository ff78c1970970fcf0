"""What a run tells the person who waits for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class Reporter:
    """Says nothing; the base of those that do."""

    def start(self, facts: Mapping[str, str], first_step: int, total_steps: int) -> None:
        """The run is ready: its facts, and which steps are to come."""

    def step(self, step: int, epoch: str, loss: float, images_per_second: float) -> None:
        """A step has been made; ``loss`` is a running mean."""

    def note(self, text: str) -> None:
        """Something worth a line has happened."""

    def close(self) -> None:
        """The run has ended, in whatever way."""


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

    def start(self, facts: Mapping[str, str], first_step: int, total_steps: int) -> None:
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

    def step(self, step: int, epoch: str, loss: float, images_per_second: float) -> None:
        self._step, now = step, time.monotonic()
        if now - self._shown < (0.2 if self._bar is not None else self._interval):
            return
        self._shown = now
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch}", refresh=False)
            self._bar.set_postfix_str(
                f"loss {loss:.4f}, {images_per_second:.0f} images/s", refresh=False
            )
            with suppress(OSError):
                self._catch_up()
        else:
            left = (now - self._began) / (step - self._first) * (self._total - step)
            _say(
                f"epoch {epoch}, step {step:,} of {self._total:,}: loss {loss:.4f}, "
                f"{images_per_second:.0f} images/s, {duration(left)} left"
            )

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
