"""Gradient modes: how a gradient gets back through the steps of a solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from solvers.fields.base import VectorField
from solvers.gradients.cache_chunks import run_in_chunks
from solvers.gradients.relaxation_chain import solve_chain, solve_relaxation
from solvers.loop.integration import Advance, Integration, Running
from solvers.loop.progress import Progress
from solvers.methods.base import BoundMethod, Method
from solvers.solution import Solution


class GradientMode(ABC):
    """How a gradient gets back through the steps of a solve; an immutable value."""

    @abstractmethod
    def solve(self, integration: Integration) -> Solution:
        """The solution, with its gradient; without throwing."""

    def chain(self, integration: Integration, fields: Sequence[VectorField]) -> Tensor | None:
        """The ends of a chain of problems ``(len(fields), *y0.shape)`` in one sweep.

        None where this mode solves them one by one.
        """
        return None

    def check(self, method: Method) -> None:  # noqa: B027  # most modes work with any method
        """Raise ValueError where the mode cannot work with the method."""


@dataclass(frozen=True)
class Backpropagation(GradientMode):
    """Through the steps as they were taken (discretise, then optimise). The default.

    The exact gradient of the numbers that the solve gave; its memory grows with the number of
    evaluations. Fields that know their own derivative (:class:`solvers.PullbackFunction`) have it
    written by hand, for relaxation methods.
    """

    def solve(self, integration: Integration) -> Solution:
        solution = solve_relaxation(integration)
        return run_in_chunks(integration) if solution is None else solution

    def chain(self, integration: Integration, fields: Sequence[VectorField]) -> Tensor | None:
        return solve_chain(integration, fields)


@dataclass(frozen=True)
class Checkpointing(GradientMode):
    """The same gradient with the steps made again on the way back.

    The solve is cut into segments; of each only the first state is kept, and its steps are made
    again when the gradient comes to them. Segments grow along the solve, so that memory grows
    with the square root of the number of steps, which need not be known: with r = 4 states
    recorded for each evaluation of a step, segment k is 1 + k / r steps long, and of n steps
    about sqrt(2 r n) states are kept and as many recorded at a time. One more forward solve is
    the price.

    Reference: Griewank & Walther, Evaluating Derivatives, section 12.3; the segments are run by
    torch.utils.checkpoint.
    """

    def solve(self, integration: Integration) -> Solution:
        return integration.run(_in_segments)


def _in_segments(advance: Advance, running: Running, progress: Progress) -> Progress:
    recorded = 4 * progress.bound.method.stages
    segment = 0
    while running(progress):
        length = 1 + segment // recorded
        if torch.is_grad_enabled():
            bound, rest = checkpoint(
                _segment, advance, running, progress, length, use_reentrant=False
            )
        else:
            bound, rest = _segment(advance, running, progress, length)
        progress = Progress(progress.bound if bound is None else bound, *rest)
        segment += 1
    return progress


def _segment(
    advance: Advance, running: Running, progress: Progress, length: int
) -> tuple[BoundMethod | None, tuple[Any, ...]]:
    """The next ``length`` steps: the bound method where the field is another, and the rest.

    (An object that is made in a checkpoint cannot leave it where torch 2.9 compiles it.)
    """
    # Anew, since what a bound method keeps between steps would be there only the first time.
    bound = progress.bound.on(progress.bound.field)
    progress = progress._replace(bound=bound)
    for _ in range(length):
        if not running(progress):
            break
        progress = advance(progress)
    return None if progress.bound is bound else progress.bound, progress[1:]
