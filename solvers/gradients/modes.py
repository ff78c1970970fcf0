"""Gradient modes: how a gradient gets back through the steps of a solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from solvers.methods.base import Method
from solvers.solution import Solution

Advance = Callable[[Any], Any]
Running = Callable[[Any], bool]


class GradientMode(ABC):
    """How a gradient gets back through the steps of a solve; an immutable value."""

    def solve(self, integration: Any, y0: Tensor) -> Solution:
        """The solution of an :class:`solvers.loop.integration.Integration`, with its gradient."""
        solution: Solution = integration.run(y0)
        return solution

    def check(self, method: Method) -> None:  # noqa: B027  # most modes work with any method
        """Raise ValueError where the mode cannot work with the method."""

    @abstractmethod
    def run(self, advance: Advance, running: Running, progress: Any) -> Any:
        """Apply ``advance`` while ``running``."""


@dataclass(frozen=True)
class Backpropagation(GradientMode):
    """Through the steps as they were taken (discretise, then optimise). The default.

    The exact gradient of the numbers that the solve gave; its memory grows with the number of
    evaluations. Fields that know their own derivative (:class:`solvers.PullbackField`) have it
    written by hand, for relaxation methods.
    """

    def run(self, advance: Advance, running: Running, progress: Any) -> Any:
        while running(progress):
            progress = advance(progress)
        return progress


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

    def run(self, advance: Advance, running: Running, progress: Any) -> Any:
        recorded = 4 * progress.bound.method.stages
        segment = 0
        while running(progress):
            length = 1 + segment // recorded
            if torch.is_grad_enabled():
                progress = checkpoint(
                    _segment, advance, running, progress, length, use_reentrant=False
                )
            else:
                progress = _segment(advance, running, progress, length)
            segment += 1
        return progress


def _segment(advance: Advance, running: Running, progress: Any, length: int) -> Any:
    """The next ``length`` steps."""
    # Anew, since what a bound method keeps between steps would be there only the first time.
    progress = progress._replace(bound=progress.bound.method.bind(progress.bound.field))
    for _ in range(length):
        if not running(progress):
            break
        progress = advance(progress)
    return progress
