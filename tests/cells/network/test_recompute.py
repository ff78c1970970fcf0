"""Recomputation changes memory alone; torch.compile and torch.export follow a LiquidRNN."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from liquid_ode import LiquidRNN
from solvers import Euler, Heun, Uniform
from tests.cells.network.rnn_cells import BATCH, HIDDEN, INPUT, PlainCell, make, problem
from tests.versions import needs_compiler

LONG = 30
FORMS = ["equal", "unbatched", "packed"]


def inputs(form: str) -> tuple[Any, Tensor]:
    """Inputs as the user passes them, and durations."""
    x, durations = problem(BATCH, LONG)
    if form == "unbatched":
        return x[0], durations[0]
    if form == "packed":
        lengths = torch.tensor([17, 30, 4, 17])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return packed, durations
    return x, durations


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.3, "projection": 2},
        {"solver": Heun(2)},
        {"cell": PlainCell},
    ],
)
def test_numbers_and_gradients_stay(options: dict[str, Any], form: str) -> None:
    x, durations = inputs(form)
    leaves = [x.data if isinstance(x, PackedSequence) else x, durations]
    results = []
    for recompute in (False, True):
        rnn = make(recompute=recompute, **options)
        for leaf in leaves:
            leaf.requires_grad_()
        torch.manual_seed(1)
        out, h_n = rnn(x, durations=durations)
        values = out.data if isinstance(out, PackedSequence) else out
        loss = values.sin().sum() + h_n.cos().sum()
        gradients = torch.autograd.grad(loss, [*leaves, *rnn.parameters()])
        results.append((values, h_n, *gradients))
    torch.testing.assert_close(results[1], results[0], rtol=1e-11, atol=1e-13)


def test_second_derivatives() -> None:
    found = []
    for recompute in (False, True):
        rnn = make(recompute=recompute)
        x, _ = problem()
        x.requires_grad_()
        torch.manual_seed(0)
        (first,) = torch.autograd.grad(rnn(x)[0].sin().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), list(rnn.parameters())))
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


class Watched(PlainCell):
    """Remembers the number of steps of every call."""

    calls: list[int]

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        self.calls.append(x.shape[0])
        return super().flow(x, h0, duration)


@pytest.mark.parametrize("form", FORMS)
def test_a_segment_is_recorded_at_a_time(form: str) -> None:
    rnn = make(cell=Watched, recompute=True)
    calls: list[int] = []
    rnn.cells[0].calls = calls  # type: ignore[assignment]
    x, _ = inputs(form)
    kept = 0

    def counted(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += 1
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(counted, lambda tensor: tensor):
        _, h_n = rnn(x)
    assert kept < LONG  # the cell alone would keep several tensors for each step
    forwards = list(calls)
    assert sum(forwards) == LONG
    assert max(forwards) <= math.isqrt(LONG) < LONG / 4
    calls.clear()
    h_n.sum().backward()
    assert calls == forwards[::-1]


def test_without_a_gradient_it_has_no_effect() -> None:
    rnn = make(cell=Watched, recompute=True)
    calls: list[int] = []
    rnn.cells[0].calls = calls  # type: ignore[assignment]
    x, _ = inputs("equal")
    with torch.no_grad():
        rnn(x)
    assert calls == [LONG]


@needs_compiler
@pytest.mark.parametrize(
    ("options", "with_durations"),
    [
        ({"solver": Euler(3, step_size=Uniform())}, False),
        ({"solver": Euler(2), "bidirectional": True, "projection": 2}, True),
        ({"solver": Euler(3, step_size=Uniform()), "recompute": True}, True),
    ],
)
def test_export_and_compile(options: dict[str, Any], with_durations: bool) -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(INPUT, HIDDEN, **options)
    x, durations = (value.float() for value in problem(2, 3))
    arguments = (x, None, durations) if with_durations else (x,)
    expected = rnn(*arguments)
    exported = torch.export.export(rnn, arguments).module()
    torch.testing.assert_close(exported(*arguments), expected, rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()
    compiled = torch.compile(rnn, fullgraph=True, backend="aot_eager")
    found = compiled(*arguments)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    gradients = [
        torch.autograd.grad(out.square().sum(), list(rnn.cells.parameters()))
        for out, _ in (found, expected)
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)
