"""Solves as people write them who come from other libraries: what a solver is held to."""

from __future__ import annotations

import pytest
import torch

import solvers
from solvers import (
    PID,
    DormandPrince,
)

F64 = torch.float64


def test_flags_are_booleans() -> None:
    with pytest.raises(ValueError, match="shared must be True or False"):
        PID(shared="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compiled must be True or False"):
        DormandPrince(compiled="no")  # type: ignore[arg-type]


def test_a_method_of_ones_own_is_held_to_its_shapes() -> None:
    class Loose(solvers.Method):
        order, stages, error_order = 1, 1, 2

        def __init__(self, kind: str) -> None:
            self.kind = kind

        def step(self, field, t, y, dt, first):  # type: ignore[no-untyped-def]
            y1 = y + dt * first
            return {
                "tensor": y1,
                "scalar error": solvers.StepResult(y1, torch.tensor(1e-9, dtype=F64)),
                "no error": solvers.StepResult(y1),
                "narrow": solvers.StepResult(y1.float(), y1.float()),
            }[self.kind]

    y0 = torch.ones(2, 2, dtype=F64)
    for kind, words in {
        "tensor": "must return a solvers.StepResult, not Tensor",
        "scalar error": "as the error must return the shape",
        "no error": "as the error must return a tensor, not NoneType",
        "narrow": "must return the shape and dtype",
    }.items():
        with pytest.raises(ValueError, match=words):
            solvers.NativeSolver(method=Loose(kind), rtol=1e-3).solve(lambda t, y: -y, y0)
