"""What a cell is given: the dtype, the device and the numbers are looked at alike by every cell."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import solvers
from liquid_ode.cells import CfCCell, LiquidCell, LiquidRNN, LTCCell, RecurrentCell
from solvers import SolverError
from tests.cells.ordinary_cells import BATCH, CELLS, HIDDEN, INPUTS, STEPS, inputs, made, network

every_cell = pytest.mark.parametrize("name", CELLS)


def state(cell: RecurrentCell, x: Tensor) -> Tensor:
    return torch.zeros(BATCH, *cell.state_shape(x.shape[-cell.feature_axes :])).to(x)


def ways(cell: RecurrentCell) -> dict[str, Callable[..., Any]]:
    """A step, a sequence, and a network around it, each of x ``(T, B, ...)`` and h ``(B, ...)``."""
    rnn = network(cell)

    def step(x: Tensor, h: Tensor | None = None) -> Tensor:
        found: Tensor = cell(x[-1], h)
        return found

    def through(x: Tensor, h: Tensor | None = None) -> Tensor:
        found: Tensor = rnn(x, None if h is None else h.unsqueeze(0))[0]
        return found

    return {"step": step, "sequence": cell.sequence, "network": through}


@every_cell
def test_another_dtype_is_an_error_that_says_what_to_call(name: str) -> None:
    cell = made(name, torch.float32)
    x = inputs(cell, dtype=torch.float32)
    kind = type(cell).__name__
    for way in ways(cell).values():
        words = rf"x is torch.float64, the weights of the {kind} are torch.float32: .*\.to\(dtype\)"
        with pytest.raises(ValueError, match=words):
            way(x.double())
        with pytest.raises(ValueError, match=r"x must be floating point, not torch.int64"):
            way(x.long())
        words = r"h0 is torch.float64, x is torch.float32: call h0.to\(x.dtype\)"
        with pytest.raises(ValueError, match=words):
            way(x, state(cell, x).double())


@every_cell
def test_another_device_is_an_error_that_says_what_to_call(name: str) -> None:
    cell = made(name)
    x = inputs(cell)
    kind = type(cell).__name__
    for way in ways(cell).values():
        words = rf"x is on meta, the weights of the {kind} are on cpu: .*\.to\(device\)"
        with pytest.raises(ValueError, match=words):
            way(x.to("meta"))
        words = r"h0 is on meta, x is on cpu: call h0.to\(x.device\)"
        with pytest.raises(ValueError, match=words):
            way(x, state(cell, x).to("meta"))
    ones = torch.ones(STEPS, BATCH, device="meta")
    for call in (
        lambda: cell.sequence(x, None, ones),
        lambda: cell(x[0], duration=ones[0].reshape(BATCH, *(1,) * cell.feature_axes)),
        lambda: network(cell)(x, durations=ones),
    ):
        with pytest.raises(ValueError, match=r"durations? is on meta, x is on cpu"):
            call()


@every_cell
def test_autocast_takes_states_of_either_dtype(name: str) -> None:
    cell = made(name, torch.float32)
    x = inputs(cell, dtype=torch.float32)
    h = state(cell, x)
    with torch.autocast("cpu", torch.bfloat16):
        expected = cell.sequence(x, h)
        for given, start in ((x, h.bfloat16()), (x.bfloat16(), h)):
            found = cell.sequence(given, start)
            torch.testing.assert_close(found.float(), expected.float(), rtol=0.05, atol=0.05)
        with pytest.raises(ValueError, match=r"x is torch.float64"):
            cell.sequence(x.double(), h)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@every_cell
def test_numbers_that_are_not_finite_are_named_by_step_and_sample(name: str, bad: float) -> None:
    cell = made(name)
    x = inputs(cell)
    x[2, 1, 0], x[2, 3] = bad, bad
    words = re.escape(f"x must be finite, but is {bad:g} in ")
    for way, place in (
        (cell.sequence, r"step 2, sample 1 \(2 such in all\)"),
        (network(cell), r"step 2, sample 1 \(2 such in all\)"),
        (network(cell, bidirectional=True), r"step 2, sample 1 \(2 such in all\)"),
        (network(cell, recompute=True), r"step 2, sample 1 \(2 such in all\)"),
    ):
        with pytest.raises(ValueError, match=f"{words}{place}"):
            way(x)
    with pytest.raises(ValueError, match=rf"{words}sample 1 \(2 such in all\)"):
        cell(x[2])


@every_cell
def test_a_state_or_a_weight_that_is_not_finite_is_named(name: str) -> None:
    cell = made(name)
    x = inputs(cell)
    h = state(cell, x)
    h[2] = torch.nan
    for way in ways(cell).values():
        with pytest.raises(ValueError, match="h0 must be finite, but is nan in sample 2"):
            way(x, h)
    own, weight = list(cell.named_parameters())[-1]
    with torch.no_grad():
        weight.fill_(torch.nan)
    for way in ways(cell).values():
        with pytest.raises(ValueError, match=rf"{own.split('.')[-1]} of the .* is not finite"):
            way(x)


def test_a_network_names_inputs_in_its_own_order() -> None:
    rnn = LiquidRNN(INPUTS, HIDDEN, 2, cell=CfCCell)
    x = torch.randn(BATCH, STEPS, INPUTS)
    x[3, 1] = torch.nan
    with pytest.raises(ValueError, match="nan in sample 3, step 1 "):
        rnn(x)
    with pytest.raises(ValueError, match="nan in sample 3, step 1 "):
        rnn.last(x)
    with pytest.raises(ValueError, match="nan in step 1 "):
        rnn(x[3])
    packed = pack_sequence([x[0, :1], x[1, :2], x[3]], enforce_sorted=False)
    with pytest.raises(ValueError, match="nan in sample 2, step 1 "):
        rnn(packed)


def test_numbers_that_overflow_a_sum_are_finite() -> None:
    x = torch.full((2, INPUTS), 3e38)
    cell = LTCCell(INPUTS, HIDDEN)
    with torch.no_grad():
        cell.input_w.zero_()
    torch.testing.assert_close(cell(x), cell(torch.zeros_like(x)))


def test_a_norm_of_zeros_is_told_from_a_bad_input() -> None:
    cell = CfCCell(INPUTS, HIDDEN)
    with torch.no_grad():
        cell.ff1.weight.zero_()
    nn.utils.parametrizations.weight_norm(cell.ff1, "weight")
    with pytest.raises(ValueError, match=r"though x, h0 and the parameters are: .* a row of zeros"):
        cell(torch.randn(2, INPUTS))


def test_a_solver_that_fails_on_good_numbers_says_so_itself() -> None:
    x = torch.randn(STEPS, 2, INPUTS)
    cell = LiquidCell(INPUTS, HIDDEN, solver=solvers.get("tsit5", max_steps=2, rtol=1e-9))
    runs: list[tuple[str, Callable[..., Any]]] = [
        ("step 0: ", cell.sequence),
        ("step 0: ", network(cell)),
        ("", lambda x: cell(x[0])),
    ]
    for place, run in runs:
        words = rf"^{place}2 of 2 samples \(0, 1\) reached the largest number of steps"
        with pytest.raises(SolverError, match=words) as caught:
            run(x)
        assert "throw" not in str(caught.value)  # which a cell does not take
        assert caught.value.solution is not None
