"""torchdiffeq's calls and this package's, by which the same code runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torchdiffeq
from torch import Tensor

import solvers


class Library(NamedTuple):
    odeint: Callable[..., Any]
    odeint_adjoint: Callable[..., Any]
    odeint_event: Callable[..., Any]


THEIRS = Library(torchdiffeq.odeint, torchdiffeq.odeint_adjoint, torchdiffeq.odeint_event)
OURS = Library(solvers.odeint, solvers.odeint_adjoint, solvers.odeint_event)


def solve(library: Library, adjoint: bool) -> Callable[..., Any]:
    return library.odeint_adjoint if adjoint else library.odeint


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor], rtol: float = 1e-5) -> None:
    """Each within ``rtol`` of its largest element."""
    for own, other in zip(ours, theirs, strict=True):
        largest = float(other.detach().abs().max())
        torch.testing.assert_close(own, other, rtol=0.0, atol=rtol * max(largest, 1e-3))
