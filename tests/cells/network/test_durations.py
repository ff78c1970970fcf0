"""Durations in every form, of which none is guessed at; and padding, which leaves a state alone."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from liquid_ode import (
    CfCCell,
    ConvLiquidCell,
    LiquidCell,
    LiquidRNN,
    LTCCell,
    MixedMemoryCell,
    PureForm,
    WiredCfCCell,
    Wiring,
)
from solvers import DormandPrince, Heun
from tests.cells.network.rnn_cells import BATCH, INPUT, LENGTH, PlainCell, close, make, problem
from tests.versions import needs_compiler

NUMBERS = [0.3, 0, 2, np.float32(0.3), np.int64(2), torch.tensor(0.3), torch.tensor(2)]


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
@pytest.mark.parametrize("cell", [LiquidCell, PlainCell])
def test_one_for_all(cell: Any, number: Any) -> None:
    rnn = make(cell=cell, num_layers=2, bidirectional=True)
    x, _ = problem()
    each = torch.full((BATCH, LENGTH), float(number), dtype=torch.float64)
    expected = rnn(x, durations=each)
    close(rnn(x, durations=number), expected)
    close(rnn.last(x, durations=number), rnn.last(x, durations=each))
    alone, h_n = rnn(x[0], durations=number)
    close((alone, h_n), (expected[0][0], expected[1][:, 0]))
    lengths = torch.tensor([3, 7, 1, 5])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    close(rnn(packed, durations=number)[1], rnn(packed, durations=each)[1])


@pytest.mark.parametrize("batch_first", [True, False])
def test_of_all_samples_alike_and_of_each(batch_first: bool) -> None:
    """Of one axis it is that of time, also where there are as many samples as steps."""
    rnn = make(batch_first=batch_first, num_layers=2)
    x, durations = problem(LENGTH, LENGTH)

    def turned(values: Tensor) -> Tensor:
        return values if batch_first else values.transpose(0, 1)

    alone = torch.stack([rnn(x[i], durations=durations[i])[0] for i in range(LENGTH)])
    for given in (durations, durations[..., None]):
        close(turned(rnn(turned(x), durations=turned(given))[0]), alone)
    alike = torch.stack([rnn(x[i], durations=durations[0])[0] for i in range(LENGTH)])
    close(turned(rnn(turned(x), durations=durations[0])[0]), alike)
    close(rnn(x[0], durations=durations[0, :, None])[0], alone[0])
    lengths = torch.tensor([3, 7, 1, 5, 5, 2, 7])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    for given, expected in ((turned(durations[..., None]), alone), (durations[0], alike)):
        out = pad_packed_sequence(rnn(packed, durations=given)[0], batch_first=True)[0]
        for i, n in enumerate(lengths.tolist()):
            close(out[i, :n], expected[i, :n])


INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
INTEGERS += [torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_whole_numbers(dtype: torch.dtype) -> None:
    rnn = LiquidRNN(INPUT, 4)
    x, whole = torch.randn(BATCH, LENGTH, INPUT), torch.randint(0, 4, (BATCH, LENGTH))
    expected = rnn(x, durations=whole.float())[0]
    assert torch.equal(rnn(x, durations=whole.to(dtype))[0], expected)
    lengths = torch.tensor([3, 7, 7, 5])
    packed = [
        pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
        for values in (x, whole)
    ]
    given = packed[1].to(dtype)
    found = pad_packed_sequence(rnn(packed[0], durations=given)[0], batch_first=True)[0]
    torch.testing.assert_close(found[1], expected[1])
    torch.testing.assert_close(found[0, :3], expected[0, :3])


def test_large_whole_numbers_stay_exact_in_half_precision() -> None:
    rnn = LiquidRNN(INPUT, 4, cell=PlainCell).bfloat16()
    x = torch.randn(1, 1, INPUT).bfloat16()
    # 257 is no bfloat16: what the cell is given is the number itself.
    close(rnn(x, durations=torch.tensor([[257]]))[0], rnn(x, durations=torch.tensor([[257.0]]))[0])
    given: list[Tensor] = []
    rnn.cells[0].flow = lambda x, h, d: given.append(d) or x.new_zeros(1, 1, 4)  # type: ignore
    rnn(x, durations=torch.tensor([[257]]))
    assert given[0].item() == 257


def test_gradients_of_shared_durations() -> None:
    rnn = make(cell=PlainCell)
    x, _ = problem()
    of_all = torch.rand(LENGTH, dtype=torch.float64, requires_grad=True)
    single = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for given in (of_all, single):
        assert torch.autograd.gradcheck(lambda d: rnn(x, durations=d)[0], given)


PADDED = {
    "liquid": {},
    "heun": {"solver": Heun(2)},
    "tolerance": {"solver": DormandPrince()},
    "ltc": {"cell": LTCCell},
    "cfc": {"cell": CfCCell},
    "pure": {"cell": functools.partial(CfCCell, form=PureForm())},
    "mixed": {"cell": MixedMemoryCell},
    "own": {"cell": PlainCell},
}


@pytest.mark.parametrize("kind", PADDED)
def test_padding_of_duration_zero_leaves_a_state_alone(kind: str) -> None:
    """So that the last states, and the outputs to each length, are those without padding."""
    rnn = make(num_layers=2, **PADDED[kind])
    x, durations = problem()
    lengths = torch.tensor([3, 7, 1, 5])
    beyond = torch.arange(LENGTH) >= lengths[:, None]
    out, h_n = rnn(x, None, durations.masked_fill(beyond, 0))
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, h_expected = rnn(packed, None, durations)
    padded, _ = pad_packed_sequence(expected, batch_first=True)
    close(h_n, h_expected)
    close(out.masked_fill(beyond[..., None], 0), padded)
    assert torch.equal(out[0, 3], out[0, 2])


@pytest.mark.parametrize("maps", [False, True])
def test_padding_of_circuits_and_maps(maps: bool) -> None:
    options: dict[str, Any] = {"cell": ConvLiquidCell}
    if not maps:
        options = {"cell": WiredCfCCell, "wiring": Wiring.auto_ncp(2, 5, 2)}
    rnn = LiquidRNN(2, 5, **options).double()
    x, durations = problem(2, 4, (2, 4, 5) if maps else (2,))
    durations[1, 2:] = 0
    _, h_n = rnn(x, None, durations)
    close(h_n[:, 1], rnn(x[1, :2], None, durations[1, :2])[1])


@needs_compiler
def test_a_number_under_export_and_compile() -> None:
    rnn = LiquidRNN(INPUT, 4, cell=PlainCell)
    x = torch.randn(2, 3, INPUT)
    expected = rnn(x, None, 0.5)
    exported = torch.export.export(rnn, (x, None, 0.5)).module()
    torch.testing.assert_close(exported(x, None, 0.5), expected)
    torch._dynamo.reset()
    compiled = torch.compile(rnn, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, None, 0.5), expected)
