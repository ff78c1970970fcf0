"""A sequence with irregular times: a damped swing, seen at random moments.

python examples/irregular_sequence.py

The network is told how long each gap is (`durations`), and forecasts the swing at the next moment.
A twin that is not told shows what the times are worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from liquid_ode import LiquidRNN


def swings(count: int, length: int = 20) -> tuple[Tensor, Tensor]:
    """Values ``(count, length + 1, 1)`` at irregular times, and the gaps ``(count, length)``."""
    gaps = torch.empty(count, length).exponential_(2.0).clamp(0.05, 2.0)
    times = torch.cat([torch.zeros(count, 1), gaps.cumsum(1)], dim=1)
    phase = 6.28 * torch.rand(count, 1)
    values = torch.exp(-0.05 * times) * torch.sin(1.5 * times + phase)
    return values[..., None], gaps


class Forecaster(nn.Module):
    """From each value, and the time until the next, to the next value."""

    def __init__(self, *, told: bool) -> None:
        super().__init__()
        self.told = told
        self.rnn = LiquidRNN(1, 32)
        self.head = nn.Linear(32, 1)

    def forward(self, values: Tensor, gaps: Tensor) -> Tensor:
        # The state flows for as long as the gap after each value lasts.
        states, _ = self.rnn(values, durations=gaps if self.told else None)
        return self.head(states)


def train(model: Forecaster, steps: int) -> float:
    """The root mean squared error on new swings, after training."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        values, gaps = swings(64)
        loss = nn.functional.mse_loss(model(values[:, :-1], gaps), values[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    values, gaps = swings(500)
    with torch.no_grad():
        return float((model(values[:, :-1], gaps) - values[:, 1:]).square().mean().sqrt())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300, help="of training (default: 300)")
    options = parser.parse_args(arguments)
    for told in (True, False):
        torch.manual_seed(0)
        error = train(Forecaster(told=told), options.steps)
        print(f"error {error:.3f} of a network that is {'' if told else 'not '}told the times")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
