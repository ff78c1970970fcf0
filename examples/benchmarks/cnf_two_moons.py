"""A continuous normalizing flow on two moons: seconds of a training step, and the loss it comes to.

python examples/benchmarks/cnf_two_moons.py

dz/dt is a mean over 64 gated units whose weights a small network makes of t; the log density goes
along by the exact trace, as in torchdiffeq's example: 512 samples, rtol = atol = 1e-5, dopri5, from
t = 10 back to 0, Adam. The same training with one import changed, by backpropagation and by the
adjoint, side by side in one process: each takes its steps in turn, on the same samples.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
from record import report
from torch import Tensor, nn

import solvers

SETTINGS: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5, "method": "dopri5"}
CALLS: dict[str, Callable[..., Any]] = {
    "torchdiffeq odeint": partial(torchdiffeq.odeint, **SETTINGS),
    "solvers odeint": partial(solvers.odeint, **SETTINGS),
    "torchdiffeq odeint_adjoint": partial(torchdiffeq.odeint_adjoint, **SETTINGS),
    "solvers odeint_adjoint": partial(solvers.odeint_adjoint, **SETTINGS),
}


class Flow(nn.Module):
    """d/dt of a sample and of its log density."""

    def __init__(self, width: int = 64, hidden: int = 32) -> None:
        super().__init__()
        self.width = width
        self.hyper = nn.Sequential(
            nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(),
            nn.Linear(hidden, 7 * width),
        )  # fmt: skip
        self.evaluations = 0

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        parts = self.hyper(t.reshape(1, 1)).view(-1).split([6 * self.width, self.width])
        inward, outward, gate = parts[0].view(3, self.width, 2)
        hidden = torch.tanh(z @ inward.T + parts[1])
        return hidden @ (outward * torch.sigmoid(gate)) / self.width

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        z = state[0]
        with torch.enable_grad():
            z = z.requires_grad_(True)
            velocity = self.velocity(t, z)
            trace = torch.zeros_like(z[:, 0])
            for axis in range(2):
                (row,) = torch.autograd.grad(velocity[:, axis].sum(), z, create_graph=True)
                trace = trace + row[:, axis]
        return velocity, -trace.view(-1, 1)


def two_moons(samples: int) -> Tensor:
    angle = math.pi * torch.rand(samples)
    upper = torch.stack((angle.cos(), angle.sin()), 1)
    lower = torch.stack((1 - angle.cos(), 0.5 - angle.sin()), 1)
    first = torch.arange(samples).view(-1, 1) % 2 == 0
    return torch.where(first, upper, lower) + 0.05 * torch.randn(samples, 2)


class Training:
    """One flow and its optimiser, trained by one call."""

    def __init__(self, call: Callable[..., Any]) -> None:
        torch.manual_seed(0)
        self.call, self.flow = call, Flow()
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=1e-3)
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.evaluations: list[int] = []

    def step(self, x: Tensor) -> None:
        self.flow.evaluations, began = 0, time.perf_counter()
        self.optimizer.zero_grad()
        z, change = self.call(self.flow, (x, x.new_zeros(len(x), 1)), torch.tensor([10.0, 0.0]))
        normal = -0.5 * z[-1].square().sum(1) - math.log(2 * math.pi)
        loss = -(normal - change[-1].view(-1)).mean()
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - began)
        self.losses.append(loss.item())
        self.evaluations.append(self.flow.evaluations)


def compare(samples: int, steps: int) -> list[dict[str, object]]:
    trainings = {name: Training(call) for name, call in CALLS.items()}
    torch.manual_seed(1)
    for _ in range(steps):
        x = two_moons(samples)
        for training in trainings.values():
            training.step(x)
    rows: list[dict[str, object]] = []
    for name, training in trainings.items():
        theirs = trainings[name.replace("solvers", "torchdiffeq")]
        last = steps // 4
        rows.append(
            {
                "call": name,
                "seconds a step": round(statistics.median(training.seconds), 3),
                "times as fast": round(
                    statistics.median(
                        b / a for a, b in zip(training.seconds, theirs.seconds, strict=True)
                    ),
                    2,
                ),
                "evaluations": round(statistics.mean(training.evaluations)),
                "first loss": round(training.losses[0], 4),
                "loss of the last quarter": round(statistics.mean(training.losses[-last:]), 4),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=512, help="(default: 512)")
    parser.add_argument("--steps", type=int, default=40, help="of training (default: 40)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    title = f"CNF on two moons, {options.samples} samples, tolerance 1e-5, {options.steps} steps"
    report(title, compare(options.samples, options.steps), options.json)


if __name__ == "__main__":
    main()
