"""Gradient modes: how a gradient gets back through the steps of a solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from solvers.checks import within_a_transform
from solvers.fields.base import VectorField
from solvers.gradients.cache_chunks import run_in_chunks
from solvers.gradients.relaxation_chain import solve_chain, solve_relaxation
from solvers.loop.integration import Advance, Integration, Running, straight_on
from solvers.loop.solve_state import SolveState
from solvers.methods.base import Method
from solvers.solution import Solution


class GradientMode(ABC):
    """How a gradient gets back through the steps of a solve; an immutable value."""

    @abstractmethod
    def solve(self, integration: Integration) -> Solution:
        """The solution, with its gradient; without throwing."""

    def chain(
        self, integration: Integration, fields: Sequence[VectorField], restarts: Tensor | None
    ) -> Tensor | None:
        """The ends of a chain of problems, as :meth:`Solver.solve_chain`, in one sweep.

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

    def chain(
        self, integration: Integration, fields: Sequence[VectorField], restarts: Tensor | None
    ) -> Tensor | None:
        return solve_chain(integration, fields, restarts)


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
        # torch.func keeps no checkpoints: there it is plain backpropagation.
        return integration.run(straight_on if within_a_transform() else _in_segments)


def _in_segments(advance: Advance, running: Running, state: SolveState) -> SolveState:
    recorded = 4 * state.bound.method.stages
    segment = 0
    while running(state):
        length = 1 + segment // recorded
        if torch.is_grad_enabled():
            state = checkpoint(_segment, advance, running, state, length, use_reentrant=False)
        else:
            state = _segment(advance, running, state, length)
        segment += 1
    return state


def _segment(advance: Advance, running: Running, state: SolveState, length: int) -> SolveState:
    """The next ``length`` steps."""
    # Anew, since what a bound method keeps between steps would be there only the first time.
    state = state._replace(bound=state.bound.on(state.bound.field))
    for _ in range(length):
        if not running(state):
            break
        state = advance(state)
    return state
