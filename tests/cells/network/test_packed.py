"""Packed sequences: every sample of its own length, as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tests.cells.network.rnn_cells import BATCH, HIDDEN, close, make, problem

LENGTHS = [3, 7, 1, 5]


@pytest.mark.parametrize("padding", ["packed", "column", "resorted", "padded", "longer"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_packed_sequence_is_every_sample_alone(batch_first: bool, padding: str) -> None:
    rnn = make(num_layers=2, bidirectional=True, projection=2, batch_first=batch_first)
    x, durations = problem()
    h0 = torch.randn(4, BATCH, HIDDEN, dtype=torch.float64)
    lengths = torch.tensor(LENGTHS)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    given: Any = pack_padded_sequence(durations, lengths, batch_first=True, enforce_sorted=False)
    if padding == "column":
        given = given._replace(data=given.data[:, None])
    elif padding == "resorted":  # durations of samples in sorted order, packed as they are
        order = packed.sorted_indices
        given = pack_padded_sequence(durations[order], lengths[order], batch_first=True)
        packed = pack_padded_sequence(x[order], lengths[order], True, enforce_sorted=False)
        h0, x, durations, lengths = h0[:, order], x[order], durations[order], lengths[order]
    elif padding in {"padded", "longer"}:
        more = torch.full((BATCH, 2 if padding == "longer" else 0), torch.nan, dtype=torch.float64)
        given = torch.cat([durations, more], dim=1)
        given = given if batch_first else given.t()
    out, h_n = rnn(packed, h0, durations=given)
    padded, found = pad_packed_sequence(out, batch_first=True)
    assert found.tolist() == lengths.tolist()
    for i, n in enumerate(lengths.tolist()):
        alone, h_alone = rnn(x[i, :n], h0[:, i], durations=durations[i, :n])
        close(padded[i, :n], alone)
        close(h_n[:, i], h_alone)
        close(rnn.last(packed, h0, given)[0][i], rnn.last(x[i, :n], h0[:, i], durations[i, :n])[0])


def test_packed_durations_may_break_ties_otherwise() -> None:
    rnn = make()
    x, durations = problem()
    lengths = torch.tensor([5, 5, 3, 3])
    packed = pack_padded_sequence(x, lengths, batch_first=True)
    turned = torch.tensor([1, 0, 3, 2])
    other = pack_padded_sequence(durations[turned], lengths, batch_first=True)
    other = PackedSequence(other.data, other.batch_sizes, turned, turned)
    expected = pack_padded_sequence(durations, lengths, batch_first=True)
    close(rnn(packed, None, other)[1], rnn(packed, None, expected)[1])


def test_no_step_of_padding_is_computed() -> None:
    rnn = make(num_layers=2)
    rows = 0

    def counted(module: nn.Module, arguments: tuple[Tensor], out: Tensor) -> None:
        nonlocal rows
        rows += out.shape[:-1].numel()

    rnn.cells[1].tau_mlp.register_forward_hook(counted)
    x, _ = problem()
    rnn(pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False))
    assert rows == sum(LENGTHS)
