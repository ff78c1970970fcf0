"""What a solve returns, and how it says that samples failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Generic

import torch
from torch import Tensor
from typing_extensions import TypeVar

from solvers.checks import holds
from solvers.fields.structures import leaves_of, rebuilt
from solvers.path import SolutionPath

State = TypeVar("State", default=Tensor)
"""What the user has for a state: a tensor, or a structure of tensors."""


class SolverError(RuntimeError):
    """A solve failed: the message says which samples, why, and what to change.

    Attributes:
        solution: with the statuses, and the states of the samples that did not fail.
        problem: which of a chain's problems failed, from 0; None where there is one.
    """

    def __init__(
        self, message: str, solution: Solution[Any] | None = None, problem: int | None = None
    ) -> None:
        super().__init__(message)
        self.solution, self.problem = solution, problem


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
        "raise max_steps, or loosen rtol and atol; where a fast leak limits the steps, write the "
        "field as a SemilinearField and take ETDRK4 or ExponentialEuler; for any other stiff field "
        "take Rosenbrock23 or Rodas5P",
    ),
    NON_FINITE: (
        "met a NaN or an infinity in the state or its derivative",
        "take more steps or a tighter tolerance, or look for NaN in the inputs and weights; a "
        "SemilinearField has no step limit with ExponentialEuler",
    ),
    STEP_UNDERFLOW: (
        "needed a step smaller than the time can resolve",
        "the solution grows without bound there (as y' = y^2 does), or the field jumps: end the "
        "span before it, or smooth the jump or loosen rtol and atol",
    ),
}
_NAMED = 8  # of the failed samples, so many are named by their index


@dataclass(frozen=True)
class Stats:
    """The work of a solve.

    Attributes:
        nfe: evaluations of the field (of its target, for semilinear methods).
        accepted: steps taken.
        rejected: steps tried and thrown away.
        jacobians: Jacobians of the field that were made, for the methods that solve with them. The
            evaluation that automatic differentiation takes for one is in ``nfe``; its pullbacks,
            as many as a sample has elements and each about as much work again, are not.

    Each is an int where all samples share the steps, an int64 tensor ``(B,)`` where the
    number of steps is controlled per sample.
    """

    nfe: int | Tensor
    accepted: int | Tensor
    rejected: int | Tensor = 0
    jacobians: int | Tensor = 0


@dataclass(frozen=True, eq=False)
class Crossings(Generic[State]):
    """Where one event's function crossed zero, K times in all; in order of sample and time.

    Attributes:
        samples: which sample, int64 ``(K,)``; 0 for one system.
        times: when, ``(K,)``.
        states: the states there, ``(K, ...)``, each as one sample has it; for one system, and
            with ``PID(shared=True)``, of the shape of ``y0``.
    """

    samples: Tensor
    times: Tensor
    states: State

    def mapped(
        self,
        states: Callable[[State], Any],
        times: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Crossings[Any]:
        """The same with other states, and with ``times(times, samples)``."""
        when = self.times if times is None else times(self.times, self.samples)
        return Crossings(self.samples, when, states(self.states))


@dataclass(frozen=True, repr=False)
class Solution(Generic[State]):
    """The result of :meth:`solvers.Solver.solve`.

    Attributes:
        y: state at ``t1``, of the shape and dtype of ``y0``.
        ys: states at ``t_eval``, ``(len(t_eval), *y0.shape)``; None without ``t_eval``.
        stats: the work done.
        status: one :class:`Status` a sample, int8 tensor ``(B,)``, or ``()`` for one system. A
            failed sample holds the last finite state that is known (``y0`` with torchdiffeq);
            the states of the other samples are right.
        event_time: time of the terminal event that ended each sample, NaN where none did, of the
            shape of ``status``; None without an event.
        event_index: which event that was, its place among those given, int64 of the same shape;
            -1 where none did; None without an event.
        events: one :class:`Crossings` for each event given, terminal or not: all that were found
            until the sample ended.
        path: the states at any time, ``path(t)``, with ``dense=True``; else None.
        succeeded: True where every sample is known to have succeeded, without looking.
        remark: what :class:`SolverError` adds.
    """

    y: State
    ys: State | None
    stats: Stats
    status: Tensor
    event_time: Tensor | None = None
    event_index: Tensor | None = None
    events: tuple[Crossings[State], ...] = ()
    path: SolutionPath | None = None
    succeeded: bool = False
    remark: str = ""

    def __repr__(self) -> str:
        parts = [f"y={_shape(self.y)}"]
        parts += [] if self.ys is None else [f"ys={_shape(self.ys)}"]
        parts += [self._ends(), _range("nfe", self.stats.nfe), _range("steps", self.stats.accepted)]
        counts = [str(each.samples.numel()) for each in self.events]
        parts += [f"crossings {' and '.join(counts)}"] if counts else []
        parts += ["path"] if self.path is not None else []
        return f"Solution({', '.join(parts)})"

    def _ends(self) -> str:
        """How the samples ended."""
        if not self.succeeded and holds(self.status == SUCCESS) is None:
            return "statuses not known here"
        whole = self.status.numel()
        if not self.status.ndim:
            return "succeeded" if self.status == SUCCESS else Status(int(self.status)).name
        found = {code: int((self.status == code).sum()) for code in Status}
        failed = [f"{found[code]} {code.name}" for code in _REASONS if found[code]]
        return ", ".join([f"{found[SUCCESS]} of {whole} succeeded", *failed])

    def mapped(self, states: Callable[[State], Any]) -> Solution[Any]:
        """The same with other states; ``states`` is given those of :attr:`y`, of :attr:`ys`, which
        have an axis of times before, of :attr:`events`, and of :attr:`path`."""
        return replace(
            self,
            y=states(self.y),
            ys=None if self.ys is None else states(self.ys),
            events=tuple(each.mapped(states) for each in self.events),
            path=None if self.path is None else self.path.mapped(states),
        )

    def throw(self, more: str = "") -> Solution[State]:
        """Return self where every sample succeeded.

        Args:
            more: what else can be done about it, a sentence for the error.

        Raises:
            SolverError: naming the samples that failed, why, and what to change.
        """
        if self.succeeded or not bool((self.status != SUCCESS).any()):
            return self
        parts = []
        for code, (reason, remedy) in _REASONS.items():
            failed = (self.status.reshape(-1) == code).nonzero().view(-1).tolist()
            shown = ", ".join(map(str, failed[:_NAMED])) + ", ..." * (len(failed) > _NAMED)
            samples = f"{len(failed)} of {self.status.numel()} samples ({shown})"
            if failed:
                parts.append(f"{samples if self.status.ndim else 'the system'} {reason}: {remedy}")
        message = " ".join([". ".join(parts) + ".", *([more] if more else [])])
        raise SolverError(message + self.remark, self)


def _shape(value: Any) -> str:
    shapes = (
        _Shown(f"{tuple(leaf.shape)} {leaf.dtype}".replace("torch.", ""))
        for _, leaf in leaves_of(value)
    )
    return repr(rebuilt(value, shapes))


class _Shown(str):
    """Text without quotes, within a structure."""

    __slots__ = ()
    __repr__ = str.__str__


def _range(name: str, count: int | Tensor) -> str:
    """A count of each sample, or of all."""
    if not isinstance(count, Tensor):
        return f"{name} {count}"
    low, high = (int(x) for x in count.aminmax()) if count.numel() else (0, 0)
    return f"{name} {low}" + f" to {high}" * (high > low)


def batch_shape(y: Tensor) -> torch.Size:
    """``(B,)``; ``()`` for one system without a batch axis."""
    return y.shape[:1] if y.ndim > 1 else torch.Size()


def all_succeeded(y: Tensor) -> Tensor:
    """SUCCESS for every sample of ``y``."""
    return torch.full(batch_shape(y), int(SUCCESS), dtype=torch.int8, device=y.device)


def all_finite(y: Tensor) -> bool:
    """Whether no element is NaN or infinite, by one reduction in the usual case.

    True also where values cannot be looked at (:func:`solvers.checks.holds`).
    """
    # A finite sum proves it; only a sum that is not (it may have overflowed) needs the full look.
    total = y.sum(dtype=torch.promote_types(y.dtype, torch.float32))
    return holds(torch.isfinite(total)) is not False or holds(torch.isfinite(y)) is not False


def finite_samples(y: Tensor) -> Tensor:
    """Which samples have no NaN or infinity, bool ``(B,)``."""
    return torch.isfinite(y).flatten(1).all(1) if y.ndim > 1 else torch.isfinite(y)


def finite_status(healthy: Tensor) -> Tensor:
    """SUCCESS where a sample is healthy, NON_FINITE elsewhere: int8, of the shape given."""
    return torch.where(healthy, int(SUCCESS), int(NON_FINITE)).to(torch.int8)
