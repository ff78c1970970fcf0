"""The same irregular series in three units of time, learned without an option changed.

python examples/benchmarks/units_of_time.py

A sine of random frequency and phase is seen at irregular times, on average a unit apart; from what
was seen and how long it is until then, the network says what is seen next. The unit is 1, 10 or 60
times shorter (the durations 60 times as large), as minutes would be seconds, and nothing else
changes. Errors are mean squares over the last two thirds of 256 series of a test set, whose
variance is about 0.5; equal steps are shown beside it, for which long steps grow.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from record import report
from torch import Tensor, nn

from liquid_ode import LiquidRNN
from solvers import Euler, ExponentialEuler, Solver, SolverError, Uniform

SOLVERS: dict[str, Solver | None] = {
    "the default, adaptive Euler": None,
    "ExponentialEuler()": ExponentialEuler(),
    "Euler(step_size=Uniform(5))": Euler(step_size=Uniform(5)),
}
UNITS = (1, 10, 60)
LENGTH, SIZE, SEEN = 24, 32, 8


def series(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """What is seen ``(B, T, 1)``, how long until the next ``(B, T)``, and what is seen then."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    gaps = uniform(0.1, 1.9, count, LENGTH + 1)
    phase = uniform(0.0, 2 * math.pi, count, 1)
    y = torch.sin(uniform(0.75, 1.25, count, 1) * gaps.cumsum(1) + phase).unsqueeze(-1)
    return y[:, :-1], gaps[:, 1:], y[:, 1:]


def error(solver: Solver | None, unit: float, seed: int, epochs: int) -> float:
    """The error on the test set after training."""
    generator = torch.Generator().manual_seed(seed)
    x, gaps, y = series(512, generator)
    torch.manual_seed(seed)
    rnn, head = LiquidRNN(1, SIZE, solver=solver), nn.Linear(SIZE, 1)
    parameters = [*rnn.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            loss = (head(rnn(x[rows], durations=unit * gaps[rows])[0]) - y[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    x, gaps, y = series(256, generator)
    with torch.no_grad():
        return float((head(rnn(x, durations=unit * gaps)[0]) - y)[:, SEEN:].square().mean())


def row(name: str, unit: float, seeds: int, epochs: int) -> dict[str, object]:
    try:
        found = torch.tensor([error(SOLVERS[name], unit, seed, epochs) for seed in range(seeds)])
    except SolverError:
        return {"solver": name, "durations times": unit, "error": "SolverError", "deviation": "-"}
    spread = f"{found.std():.4f}" if seeds > 1 else "-"
    return {
        "solver": name, "durations times": unit, "error": f"{found.mean():.4f}", "deviation": spread
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--epochs", type=int, default=40, help="(default: 40)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    rows = [row(name, unit, options.seeds, options.epochs) for name in SOLVERS for unit in UNITS]
    title = "irregular oscillations in three units of time: test error, mean over seeds"
    report(title, rows, options.json)


if __name__ == "__main__":
    main()
