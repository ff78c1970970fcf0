"""A cell with the memory of an LSTM: against a loop of torch.nn.LSTMCell and the cell."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from liquid_ode.cells import (
    CfCCell,
    ConvLiquidCell,
    LiquidCell,
    LiquidRNN,
    LTCCell,
    MixedMemoryCell,
    Wiring,
)
from solvers import Heun

INPUT, HIDDEN, BATCH, STEPS = 3, 4, 2, 5
F64 = torch.float64


def made(**options: Any) -> MixedMemoryCell:
    torch.manual_seed(0)
    return MixedMemoryCell(INPUT, HIDDEN, **options).double()


def by_loop(cell: MixedMemoryCell, x: Tensor, durations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs of sequences ``(T, B, I)``, and the last h and c."""
    lstm = nn.LSTMCell(INPUT, HIDDEN, dtype=F64)
    weights = cell.gates_of_input.weight, cell.gates_of_state.weight, cell.gates_of_input.bias
    with torch.no_grad():
        lstm.bias_hh.zero_()
        for theirs, ours in zip(
            (lstm.weight_ih, lstm.weight_hh, lstm.bias_ih), weights, strict=True
        ):
            theirs.copy_(ours)
    h, c = x.new_zeros(2, BATCH, HIDDEN)
    outs = []
    for given, duration in zip(x, durations, strict=True):
        h, c = lstm(given, (h, c))
        h = cell.cell(given, h, duration=duration.unsqueeze(1))
        outs.append(h)
    return torch.stack(outs), h, c


def sequences() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(STEPS, BATCH, INPUT, dtype=F64), 0.1 + torch.rand(STEPS, BATCH, dtype=F64)


@pytest.mark.parametrize("inner", [CfCCell, LTCCell, LiquidCell])
def test_equations(inner: type) -> None:
    cell = made(cell=inner)
    x, durations = sequences()
    out, h, c = by_loop(cell, x, durations)
    states = cell.sequence(x, None, durations)
    torch.testing.assert_close(cell.output(states), out, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(states[-1], torch.cat([h, c], 1), rtol=1e-12, atol=1e-13)


def test_a_network_passes_on_h_and_keeps_both() -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(
        INPUT, HIDDEN, 2, bidirectional=True, cell=MixedMemoryCell, projection=3, dtype=F64
    )
    x, durations = (tensor.transpose(0, 1) for tensor in sequences())
    out, h_n = rnn(x, durations=durations)
    assert out.shape == (BATCH, STEPS, 3)
    assert h_n.shape == (4, BATCH, 2 * HIDDEN)
    assert h_n.is_contiguous()
    last, _ = rnn.last(x, durations=durations)
    assert rnn.projection is not None
    ends = torch.cat([h_n[2, :, :HIDDEN], h_n[3, :, :HIDDEN]], dim=1)
    torch.testing.assert_close(last, rnn.projection(ends), rtol=1e-12, atol=1e-13)


def test_a_stream_and_packed_sequences() -> None:
    cell = made()
    rnn = LiquidRNN(INPUT, HIDDEN, cell=lambda *_: cell)
    x, durations = (tensor.transpose(0, 1) for tensor in sequences())
    whole, end = rnn(x, durations=durations)
    assert whole.transpose(0, 1).is_contiguous()
    h, parts = None, []
    for step in range(STEPS):
        part, h = rnn(x[:, step : step + 1], h, durations=durations[:, step : step + 1])
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(h, end, rtol=1e-12, atol=1e-13)
    packed = nn.utils.rnn.pack_sequence([x[0], x[1, :2]])
    out, end = rnn(packed)
    torch.testing.assert_close(out.data[3], rnn(x)[0][1, 1], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(end[0, 1], rnn(x[1, :2])[1][0], rtol=1e-12, atol=1e-13)


def test_options_are_those_of_the_cell() -> None:
    wiring = Wiring.random(HIDDEN, sparsity=0.5)
    make = functools.partial(MixedMemoryCell, cell=LTCCell)
    rnn = LiquidRNN(INPUT, HIDDEN, cell=make, solver=Heun(9), wiring=wiring)
    inner = rnn.cells[0].cell
    assert isinstance(inner, LTCCell)
    assert inner.solver == Heun(9)
    assert inner.wiring == wiring


def test_the_memory_starts_open() -> None:
    cell = made()
    gates = cell.gates_of_input.bias.detach().chunk(4)
    assert [float(gate.mean()) for gate in gates] == [0.0, 1.0, 0.0, 0.0]
    weight = cell.gates_of_state.weight
    eye = torch.eye(HIDDEN, dtype=F64)
    torch.testing.assert_close(weight.t() @ weight, eye, rtol=0, atol=1e-6)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="ConvLiquidCell has others"):
        MixedMemoryCell(INPUT, HIDDEN, cell=ConvLiquidCell)
    with pytest.raises(ValueError, match="MixedMemoryCell has others"):
        MixedMemoryCell(INPUT, HIDDEN, cell=MixedMemoryCell)
    with pytest.raises(ValueError, match="CfCCell is a closed form, with no ODE to solve"):
        MixedMemoryCell(INPUT, HIDDEN, solver=Heun(3))
    with pytest.raises(ValueError, match="must give a RecurrentCell, not LSTMCell"):
        MixedMemoryCell(INPUT, HIDDEN, cell=nn.LSTMCell)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"h0 must have shape \(2, 8\), not \(2, 4\)"):
        made()(torch.zeros(2, INPUT, dtype=F64), torch.zeros(2, HIDDEN, dtype=F64))
