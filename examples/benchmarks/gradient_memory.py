"""Memory and time of a gradient by gradient mode and number of steps.

python examples/benchmarks/gradient_memory.py

RK4 on a field of two layers, state (4096, 64) in float32. Each figure is of a process of its own:
its largest resident memory less that before the solve (with glibc told to give freed memory
back, or its fragments would be counted too), and, of another process without that, the seconds of
one forward and backward pass after one of 2 steps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

import torch
from record import report
from torch import Tensor, nn

from solvers import Backpropagation, BacksolveAdjoint, Checkpointing, ClassicRK4, GradientMode

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
        ClassicRK4(steps, gradient=MODES[mode]).solve(field, y0).y.square().mean().backward()
        return float(sum(p.grad.square().sum() for p in field.parameters() if p.grad is not None))

    gradient(2)
    before, began = peak(), time.perf_counter()
    square = gradient(steps)
    return peak() - before, time.perf_counter() - began, square**0.5


def apart(mode: str, steps: int, *, give_back: bool) -> tuple[float, float, float]:
    """:func:`measure` in a process of its own."""
    if give_back:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    else:
        os.environ.pop("MALLOC_MMAP_THRESHOLD_", None)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (mode, steps))


def compare(steps: list[int]) -> list[dict[str, object]]:
    rows = []
    for count in steps:
        tight = {mode: apart(mode, count, give_back=True) for mode in MODES}
        loose = {mode: apart(mode, count, give_back=False) for mode in MODES}
        reference = "Backpropagation()"
        for mode in MODES:
            used, _, norm = tight[mode]
            rows.append(
                {
                    "steps": count,
                    "gradient": mode,
                    "MiB": round(used),
                    "of backpropagation": round(used / tight[reference][0], 3),
                    "seconds": round(loose[mode][1], 2),
                    "times as long": round(loose[mode][1] / loose[reference][1], 2),
                    "gradient's norm, relative difference": f"{norm / tight[reference][2] - 1:.0e}",
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
