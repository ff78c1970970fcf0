"""Timing several jobs side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(
    jobs: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 3, repeats: int = 1
) -> dict[str, float]:
    """Median seconds of each job, run in turn, so that a change of the machine's speed hits all.

    Each turn runs a job ``repeats`` times in a row, of which the mean counts.
    """
    for job in jobs.values():
        for _ in range(warm_up):
            job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            for _ in range(repeats):
                job()
            seconds[name].append((time.perf_counter() - began) / repeats)
    return {name: statistics.median(values) for name, values in seconds.items()}
