"""A cell over a sequence."""

from __future__ import annotations

import pytest
import torch

from liquid_ode import LiquidRNN
from solvers import ExponentialEuler


def test_sequence_is_the_cell_step_by_step() -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(3, 5, solver=ExponentialEuler(steps=3)).double()
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    durations = torch.rand(4, 7, dtype=torch.float64)
    out, last = rnn(x, durations=durations)
    state = None
    for step in range(7):
        state = rnn.cell(x[:, step], state, duration=durations[:, step, None])
        torch.testing.assert_close(out[:, step], state)
    torch.testing.assert_close(last, out[:, -1])


@pytest.mark.parametrize("batch", [1, 5])
def test_irregular_durations_do_not_mix_samples(batch: int) -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(3, 5).double()
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    durations = torch.rand(5, 4, dtype=torch.float64)
    whole, _ = rnn(x, durations=durations)
    part, _ = rnn(x[:batch], durations=durations[:batch])
    torch.testing.assert_close(part, whole[:batch], rtol=1e-12, atol=1e-13)


def test_time_first_and_initial_state() -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(3, 5)
    x, h0 = torch.randn(4, 7, 3), torch.randn(4, 5)
    expected, last = rnn(x, h0)
    rnn.batch_first = False
    out, same = rnn(x.transpose(0, 1), h0)
    torch.testing.assert_close(out.transpose(0, 1), expected)
    torch.testing.assert_close(same, last)


def test_bad_inputs() -> None:
    rnn = LiquidRNN(3, 5)
    with pytest.raises(ValueError, match="three axes"):
        rnn(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"durations must have shape \(2, 4\), not \(4, 2\)"):
        rnn(torch.zeros(2, 4, 3), durations=torch.ones(4, 2))
    with pytest.raises(ValueError, match="empty"):
        rnn(torch.zeros(2, 0, 3))
    with pytest.raises(ValueError, match="every duration"):
        rnn(torch.zeros(2, 1, 3), durations=-torch.ones(2, 1))
