"""LiquidRNN with the equations of a GRU in its cells: it must be torch.nn.GRU."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from liquid_ode.cells import CfCCell, LiquidCell, LiquidRNN, LTCCell, RecurrentCell

BATCH, LENGTH, INPUT, HIDDEN = 4, 6, 3, 5
LENGTHS = {"sorted": [6, 4, 4, 1], "unsorted": [2, 6, 1, 5]}
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class GRUCell(RecurrentCell):
    """The equations in the documentation of torch.nn.GRU."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.weight_ih = nn.Parameter(torch.randn(3 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.randn(3 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.randn(3 * hidden_size))
        self.bias_hh = nn.Parameter(torch.randn(3 * hidden_size))

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], self.hidden_size) if h0 is None else h0
        states = []
        for step in x.unbind():
            of_x = (step @ self.weight_ih.t() + self.bias_ih).chunk(3, dim=1)
            of_h = (h @ self.weight_hh.t() + self.bias_hh).chunk(3, dim=1)
            r, z = torch.sigmoid(of_x[0] + of_h[0]), torch.sigmoid(of_x[1] + of_h[1])
            h = (1 - z) * torch.tanh(of_x[2] + r * of_h[2]) + z * h
            states.append(h)
        return torch.stack(states)


def pair(**options: Any) -> tuple[nn.GRU, LiquidRNN]:
    """A GRU, and ours with the same weights."""
    torch.manual_seed(0)
    gru = nn.GRU(INPUT, HIDDEN, dtype=torch.float64, **options)
    ours = LiquidRNN(INPUT, HIDDEN, cell=GRUCell, dtype=torch.float64, **options)
    with torch.no_grad():
        for layer, direction in itertools.product(range(gru.num_layers), range(directions(gru))):
            for name in WEIGHTS:
                weight = getattr(cell_of(ours, layer, direction), name)
                weight.copy_(getattr(gru, name_of(name, layer, direction)))
    return gru, ours


def directions(rnn: Any) -> int:
    return 2 if rnn.bidirectional else 1


def cell_of(rnn: LiquidRNN, layer: int, direction: int) -> nn.Module:
    return rnn.cells[layer * directions(rnn) + direction]


def name_of(name: str, layer: int, direction: int) -> str:
    return f"{name}_l{layer}{'_reverse' * direction}"


def inputs(form: str, batch_first: bool) -> Tensor:
    """A leaf tensor of inputs; only ``form`` "unbatched" has no axis of samples."""
    shape = (BATCH, LENGTH, INPUT) if batch_first else (LENGTH, BATCH, INPUT)
    if form == "unbatched":
        shape = (LENGTH, INPUT)
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def given(form: str, x: Tensor, batch_first: bool) -> Tensor | PackedSequence:
    """The inputs as the user passes them."""
    if form not in LENGTHS:
        return x
    lengths = torch.tensor(LENGTHS[form])
    return pack_padded_sequence(x, lengths, batch_first, enforce_sorted=form == "sorted")


def tensors_of(out: Tensor | PackedSequence, batch_first: bool) -> list[Tensor]:
    """Everything an output holds."""
    if isinstance(out, Tensor):
        return [out]
    padded, lengths = pad_packed_sequence(out, batch_first)
    order = [] if out.sorted_indices is None else [out.sorted_indices, out.unsorted_indices]
    return [out.data, out.batch_sizes, padded, lengths, *order]  # type: ignore[list-item]


@pytest.mark.parametrize("form", ["equal", "unbatched", "sorted", "unsorted"])
@pytest.mark.parametrize("with_h0", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_outputs_states_and_gradients(
    num_layers: int, bidirectional: bool, batch_first: bool, with_h0: bool, form: str
) -> None:
    options = {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": batch_first}
    gru, ours = pair(**options)
    x = inputs(form, batch_first)
    h0 = None
    if with_h0:
        batch = () if form == "unbatched" else (BATCH,)
        shape = (num_layers * directions(gru), *batch, HIDDEN)
        h0 = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    results, gradients = [], []
    for rnn in (gru, ours):
        out, h_n = rnn(given(form, x, batch_first), h0)
        found = [*tensors_of(out, batch_first), h_n]
        loss = found[0].sin().sum() + h_n.cos().sum()
        leaves = [x, *([] if h0 is None else [h0])]
        gradients.append(torch.autograd.grad(loss, [*leaves, *rnn.parameters()]))
        results.append(found)
    assert [type(out) for out in results[0]] == [type(out) for out in results[1]]
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("cell", [LiquidCell, LTCCell, CfCCell])
@pytest.mark.parametrize("form", ["equal", "unbatched", "unsorted"])
def test_memory_is_contiguous_where_that_of_a_gru_is(cell: type[RecurrentCell], form: str) -> None:
    for layers, batch_first, both in itertools.product((1, 2), (False, True), (False, True)):
        options: dict[str, Any] = {"batch_first": batch_first, "bidirectional": both}
        gru = nn.GRU(INPUT, HIDDEN, layers, dtype=torch.float64, **options)
        ours = LiquidRNN(INPUT, HIDDEN, layers, cell=cell, dtype=torch.float64, **options)
        x = given(form, inputs(form, batch_first), batch_first)
        found, expected = ([*tensors_of(rnn(x)[0], batch_first), rnn(x)[1]] for rnn in (ours, gru))
        assert [t.is_contiguous() for t in found] == [t.is_contiguous() for t in expected]


@pytest.mark.parametrize("form", ["equal", "unsorted"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_takes_the_same_elements(form: str, bidirectional: bool) -> None:
    options = {"num_layers": 3, "dropout": 0.4, "batch_first": True, "bidirectional": bidirectional}
    gru, ours = pair(**options)
    x = given(form, inputs(form, True), True)
    results = []
    for rnn in (gru, ours):
        torch.manual_seed(1)
        results.append([*tensors_of(rnn(x)[0], True), *tensors_of(rnn(x)[0], True)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-13)
    assert not torch.equal(results[1][0], results[1][len(results[1]) // 2])  # drawn anew
    gru.eval()
    ours.eval()
    torch.testing.assert_close(ours(x)[1], gru(x)[1], rtol=1e-12, atol=1e-13)
    assert torch.equal(ours(x)[1], ours(x)[1])


@pytest.mark.parametrize("form", ["equal", "unbatched", "unsorted"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_outputs_are_contiguous_where_its_own_are(
    form: str, batch_first: bool, bidirectional: bool
) -> None:
    gru, ours = pair(num_layers=2, batch_first=batch_first, bidirectional=bidirectional)
    x = given(form, inputs(form, batch_first), batch_first)
    strides = []
    for rnn in (gru, ours):
        out, h_n = rnn(x)
        values = out if isinstance(out, Tensor) else out.data
        strides.append((values.stride(), h_n.stride(), h_n.is_contiguous()))
    assert strides[0] == strides[1]
    assert strides[0][2]


def test_dropout_of_one_layer_does_nothing_and_says_so() -> None:
    for make in (nn.GRU, LiquidRNN):
        with pytest.warns(UserWarning, match="dropout"):
            rnn = make(INPUT, HIDDEN, dropout=0.5)
        x = torch.randn(2, 3, INPUT)
        assert torch.equal(rnn(x)[0], rnn(x)[0])


def test_attributes() -> None:
    options = {"num_layers": 2, "batch_first": True, "dropout": 0.1, "bidirectional": True}
    gru, ours = pair(**options)
    for name in ("input_size", "hidden_size", "num_layers", "batch_first", "dropout"):
        assert getattr(ours, name) == getattr(gru, name)
    assert ours.bidirectional is gru.bidirectional is True
    assert repr(ours).startswith(
        f"LiquidRNN(\n  {INPUT}, {HIDDEN}, num_layers=2, dropout=0.1, bidirectional=True\n"
    )


@pytest.mark.parametrize("form", ["equal", "unsorted"])
def test_a_batch_of_one_and_of_the_hidden_size(form: str) -> None:
    gru, ours = pair(num_layers=2, bidirectional=True, batch_first=False)
    for batch in (1, HIDDEN):
        x: Any = torch.randn(LENGTH, batch, INPUT, dtype=torch.float64)
        if form == "unsorted":
            lengths = torch.arange(1, batch + 1)
            x = pack_padded_sequence(x, lengths, enforce_sorted=False)
        torch.testing.assert_close(ours(x)[1], gru(x)[1], rtol=1e-12, atol=1e-13)


def test_copies_are_independent() -> None:
    _, ours = pair(num_layers=2, batch_first=False)
    x = inputs("equal", False)
    before = ours(x)[0]
    other = copy.deepcopy(ours)
    assert torch.equal(other(x)[0], before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(ours(x)[0], before)
