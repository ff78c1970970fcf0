"""The learning rate of every step of a run."""

from __future__ import annotations

import math

LR_SCHEDULES = ("cosine", "constant")


def learning_rate(
    peak: float, step: int, total: int, *, schedule: str = "cosine", warmup: int = 0
) -> float:
    """The rate of step ``step`` of ``total``, counted from 0.

    Over the first ``warmup`` steps it rises to ``peak`` in equal parts, of which the first step
    has one already. After that "constant" stays there; "cosine" falls over what is left, from
    ``peak`` by way of half of it in the middle to 0 at ``total`` (Loshchilov & Hutter 2017, eq. 5,
    one period).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
