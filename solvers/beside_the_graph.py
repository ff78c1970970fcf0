"""Solves that torch.compile runs beside its graph, as they are, and why.

To be imported under a compiler alone: to mark a function for it loads all of the compiler.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

Run = Callable[..., Any]


def _beside(reason: str) -> Run:
    """``run(function, *arguments)``, which a compiler calls without looking into it."""

    def run(function: Run, *arguments: Any) -> Any:
        return function(*arguments)

    # Before torch 2.7 there was no reason to give.
    known = "reason" in inspect.signature(torch.compiler.disable).parameters
    mark: Any = torch.compiler.disable
    return mark(run, reason=reason) if known else mark(run)


_WITHOUT = (
    "Without fullgraph=True the solve runs beside the graph, as it does without torch.compile"
)

error_controlled = _beside(
    "an error-controlled solve takes as many steps as its data ask for, and one with events ends "
    f"where they say, which a graph cannot hold (nor torch.export). {_WITHOUT}, and "
    "DormandPrince(compiled=True) compiles its steps. Within one graph take a number of steps: "
    "DormandPrince(steps=20)"
)
adjoint = _beside(
    f"BacksolveAdjoint solves its equation in the backward pass. {_WITHOUT}. Within one graph take "
    "a number of steps and Backpropagation() or Checkpointing()"
)
torchdiffeq = _beside(
    f"the code of torchdiffeq is not made for a graph. {_WITHOUT}. Within one graph take a native "
    "solver and a number of steps, such as ClassicRK4(steps=20)"
)
