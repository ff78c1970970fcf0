"""A Neural ODE block on MNIST-sized features by the adjoint method: time, memory and gradient.

python examples/benchmarks/neural_ode_adjoint.py

The block of torchdiffeq's MNIST example: two convolutions of 64 channels with the time as one more,
between three group norms, from 0 to 1 at rtol = atol = 1e-3 by dopri5; features (128, 64, 7, 7) in
float32. The same code with torchdiffeq's odeint_adjoint and with this package's. Seconds are of one
forward and backward pass, side by side in one process; memory is that of a process of its own,
its largest resident memory less that before (with glibc told to give freed memory back); the
error is that of the parameters' gradient against backpropagation at tolerance 1e-6. torchdiffeq's
estimate of the error of a step is the larger one, so it takes more steps at a tolerance: the last
two rows come near its error and meet it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
from record import report
from timing import interleaved
from torch import Tensor, nn

import solvers

WIDTH, TOLERANCE = 64, 1e-3


class TimedConvolution(nn.Module):
    """A convolution of the state and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(WIDTH + 1, WIDTH, 3, padding=1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.layer(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1))
        return out


class Block(nn.Module):
    """dx/dt, and how often it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(32, WIDTH) for _ in range(3))
        self.convolutions = nn.ModuleList(TimedConvolution() for _ in range(2))
        self.evaluations = 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.evaluations += 1
        for norm, convolution in zip(self.norms, self.convolutions, strict=False):
            x = convolution(t, torch.relu(norm(x)))
        out: Tensor = self.norms[2](x)
        return out


SETTINGS: dict[str, Any] = {"rtol": TOLERANCE, "atol": TOLERANCE, "method": "dopri5"}
CALLS: dict[str, Callable[..., Tensor]] = {
    "torchdiffeq odeint_adjoint": partial(torchdiffeq.odeint_adjoint, **SETTINGS),
    "torchdiffeq odeint_adjoint, seminorm": partial(
        torchdiffeq.odeint_adjoint, adjoint_options={"norm": "seminorm"}, **SETTINGS
    ),
    "solvers odeint_adjoint": partial(solvers.odeint_adjoint, **SETTINGS),
    "solvers odeint_adjoint, 1e-4 on the way back": partial(
        solvers.odeint_adjoint, adjoint_rtol=1e-4, adjoint_atol=1e-4, **SETTINGS
    ),
    "solvers odeint_adjoint, 1e-5 on the way back": partial(
        solvers.odeint_adjoint, adjoint_rtol=1e-5, adjoint_atol=1e-5, **SETTINGS
    ),
}


def problem(batch: int) -> tuple[Block, Tensor, Tensor, Tensor]:
    """The block, features, times and what the result is multiplied with for a loss."""
    torch.manual_seed(0)
    block = Block()
    features = torch.randn(batch, WIDTH, 7, 7, requires_grad=True)
    return block, features, torch.tensor([0.0, 1.0]), torch.randn(batch, WIDTH, 7, 7) / batch


def gradient(
    call: Callable[..., Tensor], block: Block, features: Tensor, t: Tensor, weights: Tensor
) -> Tensor:
    """Of the parameters, as one vector."""
    loss = (call(block, features, t)[1] * weights).sum()
    found = torch.autograd.grad(loss, [features, *block.parameters()])
    return torch.cat([grad.flatten() for grad in found[1:]])


def peak() -> float:
    """Largest resident memory of this process so far, MiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def memory(name: str, batch: int) -> float:
    """MiB that a pass needs, one evaluation and its gradient aside."""
    given = problem(batch)
    block, features, t, weights = given
    torch.autograd.grad((block(t[0], features) * weights).sum(), list(block.parameters()))
    before = peak()
    gradient(CALLS[name], *given)
    return peak() - before


def apart(name: str, batch: int) -> float:
    """:func:`memory` in a process of its own."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(memory, (name, batch))


def compare(batch: int, rounds: int) -> list[dict[str, object]]:
    used = {name: apart(name, batch) for name in CALLS}  # first: a process starts with its parent's
    given = problem(batch)
    block = given[0]
    tight = partial(solvers.odeint, rtol=1e-6, atol=1e-6, method="dopri5")
    exact = gradient(tight, *given)
    errors, evaluations = {}, {}
    for name, call in CALLS.items():
        block.evaluations = 0
        errors[name] = float((gradient(call, *given) - exact).norm() / exact.norm())
        evaluations[name] = block.evaluations
    jobs = {name: partial(gradient, call, *given) for name, call in CALLS.items()}
    seconds = interleaved(jobs, rounds=rounds, warm_up=1)
    first = next(iter(CALLS))
    return [
        {
            "call": name,
            "seconds": round(seconds[name], 2),
            "times as fast": round(seconds[first] / seconds[name], 2),
            "MiB": round(used[name]),
            "evaluations": evaluations[name],
            "relative error of the gradient": f"{errors[name]:.1e}",
        }
        for name in CALLS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=128, help="(default: 128)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    title = f"Neural ODE block, features ({options.batch}, 64, 7, 7), tolerance 1e-3, adjoint"
    report(title, compare(options.batch, options.rounds), options.json)


if __name__ == "__main__":
    main()
