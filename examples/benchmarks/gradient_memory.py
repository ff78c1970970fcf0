"""Memory and time of a gradient by gradient mode and number of steps.

python examples/benchmarks/gradient_memory.py

RK4 on a field of two layers, state (4096, 64) in float32. Each figure is of a process of its own:
its largest resident memory less that before the solve, and the seconds of one forward and
backward pass after one of 2 steps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import torch
from record import report
from torch import Tensor, nn

from solvers import RK4, Backpropagation, BacksolveAdjoint, Checkpointing, GradientMode

MODES: dict[str, GradientMode] = {
    "Backpropagation()": Backpropagation(),
    "Checkpointing()": Checkpointing(),
    "BacksolveAdjoint()": BacksolveAdjoint(),
}


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.layers(y)
        return out - y


def peak() -> float:
    """Largest resident memory of this process so far, MiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def measure(mode: str, steps: int) -> tuple[float, float, float]:
    """Memory, seconds, and the norm of the gradient."""
    torch.manual_seed(0)
    field, y0 = Field(), torch.randn(4096, 64)

    def gradient(steps: int) -> float:
        field.zero_grad()
        RK4(steps, gradient=MODES[mode]).solve(field, y0).y.square().mean().backward()
        return float(sum(p.grad.square().sum() for p in field.parameters() if p.grad is not None))

    gradient(2)
    before, began = peak(), time.perf_counter()
    square = gradient(steps)
    return peak() - before, time.perf_counter() - began, square**0.5


def compare(steps: list[int]) -> list[dict[str, object]]:
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for count in steps:
            figures = {mode: pool.apply(measure, (mode, count)) for mode in MODES}
            memory, seconds, norm = figures["Backpropagation()"]
            for mode, (used, took, found) in figures.items():
                rows.append(
                    {
                        "steps": count,
                        "gradient": mode,
                        "MiB": round(used),
                        "of backpropagation": round(used / memory, 3),
                        "seconds": round(took, 2),
                        "times as long": round(took / seconds, 2),
                        "norm of the gradient, relative difference": f"{abs(found / norm - 1):.1e}",
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 100, 400])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    report("memory of a gradient, RK4, state (4096, 64)", compare(options.steps), options.json)


if __name__ == "__main__":
    main()
