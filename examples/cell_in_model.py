"""A liquid cell in a model of your own: which of two notes came last, from the sound.

python examples/cell_in_model.py
python examples/cell_in_model.py --solver tsit5
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import solvers
from liquid_ode import LiquidRNN


class Listener(nn.Module):
    """A layer of your own, a liquid network, and a head: an ordinary module."""

    def __init__(self, hidden: int, classes: int, solver: solvers.Solver) -> None:
        super().__init__()
        self.encode = nn.Linear(1, 8)
        self.rnn = LiquidRNN(8, hidden, solver=solver)
        self.head = nn.Linear(hidden, classes)

    def forward(self, sound: Tensor) -> Tensor:
        states, _ = self.rnn(self.encode(sound).tanh())  # (B, T, hidden)
        return self.head(states[:, -1])  # (B, classes)


def melodies(count: int, length: int = 24) -> tuple[Tensor, Tensor]:
    """Two notes after each other, ``(count, length, 1)``, and which of two the last one was."""
    labels = torch.randint(2, (count, 2))  # of the first half and of the second
    steps = torch.arange(length // 2) + 2 * math.pi * torch.rand(count, 2, 1)
    sound = torch.sin((0.6 + 0.9 * labels[:, :, None]) * steps)  # (count, 2, length / 2)
    return sound.reshape(count, -1, 1), labels[:, 1]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--solver", default="euler", help="(default: euler)")
    parser.add_argument("--steps", type=int, default=150, help="of training (default: 150)")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = Listener(hidden=16, classes=2, solver=solvers.get(options.solver))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(options.steps):
        sound, labels = melodies(64)
        loss = nn.functional.cross_entropy(model(sound), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            print(f"step {step:4}  loss {loss.item():.3f}")
    sound, labels = melodies(500)
    with torch.no_grad():
        right = (model(sound).argmax(1) == labels).float().mean()
    print(f"accuracy {right:.1%} on 500 new melodies")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
