"""What a solve returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from solvers.errors import SolverError


class Status(IntEnum):
    """How the solve of one sample ended."""

    SUCCESS = 0
    MAX_STEPS = 1
    NON_FINITE = 2
    STEP_UNDERFLOW = 3


SUCCESS, MAX_STEPS, NON_FINITE, STEP_UNDERFLOW = Status

_REASONS = {
    MAX_STEPS: (
        "reached the largest number of steps",
        "raise max_steps, loosen rtol and atol, or take a method for stiff fields",
    ),
    NON_FINITE: (
        "met a NaN or an infinity in the state or its derivative",
        "take more steps or a method without a step limit (exponential_euler), "
        "or look for NaN in the inputs and weights",
    ),
    STEP_UNDERFLOW: (
        "needed a step smaller than the time can resolve",
        "loosen rtol and atol, or look for a discontinuity of the field",
    ),
}


@dataclass(frozen=True)
class Stats:
    """The work of a solve.

    Attributes:
        nfe: evaluations of the field (of its target, for semilinear methods).
        accepted: steps taken.
        rejected: steps tried and thrown away.

    Each is an int where all samples share the steps, an int64 tensor ``(B,)`` where the
    number of steps is controlled per sample.
    """

    nfe: int | Tensor
    accepted: int | Tensor
    rejected: int | Tensor = 0


@dataclass(frozen=True)
class Solution:
    """The result of :meth:`solvers.Solver.solve`.

    Attributes:
        y: state at ``t1``, of the shape and dtype of ``y0``.
        ys: states at ``t_eval``, ``(len(t_eval), *y0.shape)``; None without ``t_eval``.
        stats: the work done.
        status: one :class:`Status` a sample, int8 tensor ``(B,)``. A failed sample holds the
            last finite state that is known (``y0`` with torchdiffeq); the states of the other
            samples are right.
        event_time: time of the event of each sample, NaN where it had none, ``(B,)``; None
            without ``event``.
    """

    y: Tensor
    ys: Tensor | None
    stats: Stats
    status: Tensor
    event_time: Tensor | None = None

    def throw(self) -> Solution:
        """Return self where every sample succeeded.

        Raises:
            SolverError: naming how many samples failed, why, and what to change.
        """
        failed = self.status[self.status != SUCCESS]
        if failed.numel() == 0:
            return self
        parts = []
        for code, (reason, remedy) in _REASONS.items():
            count = int((failed == code).sum())
            if count:
                parts.append(f"{count} of {len(self.status)} samples {reason}: {remedy}")
        raise SolverError(". ".join(parts) + ". throw=False returns the statuses instead.")
