"""Memory and time of a gradient over a long sequence, with and without recomputation.

python examples/benchmarks/sequence_memory.py
python examples/benchmarks/sequence_memory.py --ltc   # against ncps' LTC, of the same weights

LiquidRNN with 6 Euler steps an input, batch 64, 64 inputs, hidden size 64, float32; the gradient of
all outputs is given, so that no loss adds to the figures. Each is of a process of its own: its
largest resident memory less that before the forward pass, with the inputs and the gradient of the
outputs made (and glibc told to give freed memory back, or its fragments would be counted too), and,
of another process without that, the median seconds of a forward and backward pass.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path

import torch
from gradient_memory import peak
from record import report
from timing import interleaved
from torch import Tensor, nn

from liquid_ode import LiquidRNN, from_ncps
from solvers import Euler

BATCH, SIZE = 64, 64
MODELS = ("LiquidRNN", "LiquidRNN(recompute=True)", "nn.GRU")
LTC_MODELS = ("ncps LTC", "the same, liquid_ode LTC", "the same, recompute=True")


def build(model: str) -> nn.Module:
    torch.manual_seed(0)
    if model == "nn.GRU":
        return nn.GRU(SIZE, SIZE, batch_first=True)
    if model in LTC_MODELS:
        from ncps.torch import LTC

        theirs: nn.Module = LTC(SIZE, SIZE)
        if model == LTC_MODELS[0]:
            return theirs
        ours = from_ncps(theirs)
        ours.recompute = model == LTC_MODELS[2]
        return ours
    return LiquidRNN(SIZE, SIZE, solver=Euler(steps=6), recompute=model == MODELS[1])


def problem(length: int) -> tuple[Tensor, Tensor]:
    """Inputs, and the gradient of the outputs."""
    torch.manual_seed(1)
    return torch.randn(BATCH, length, SIZE), torch.randn(BATCH, length, SIZE)


def gradient(model: nn.Module, x: Tensor, of_out: Tensor) -> None:
    model.zero_grad()
    model(x)[0].backward(of_out)


def memory(name: str, length: int) -> tuple[float, float]:
    """MiB of a gradient, and its norm."""
    model, (x, of_out) = build(name), problem(length)
    gradient(model, x[:, :16], of_out[:, :16])
    before = peak()
    gradient(model, x, of_out)
    used = peak() - before
    squares = (p.grad.double().square().sum() for p in model.parameters() if p.grad is not None)
    return used, float(sum(squares)) ** 0.5


def seconds(name: str, length: int) -> float:
    """Median seconds of a gradient."""
    model, (x, of_out) = build(name), problem(length)
    return interleaved({name: lambda: gradient(model, x, of_out)}, rounds=5, warm_up=1)[name]


def compare(models: tuple[str, ...], lengths: list[int]) -> list[dict[str, object]]:
    context = multiprocessing.get_context("spawn")
    rows = []
    for length in lengths:
        used, took = {}, {}
        for model in models:
            os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
            with context.Pool(1) as pool:
                used[model] = pool.apply(memory, (model, length))
            del os.environ["MALLOC_MMAP_THRESHOLD_"]
            with context.Pool(1) as pool:
                took[model] = pool.apply(seconds, (model, length))
        reference, norm = used[models[0]]
        for model in models:
            same = "" if model == "nn.GRU" else f"{used[model][1] / norm - 1:.0e}"
            rows.append(
                {
                    "steps": length,
                    "model": model,
                    "MiB": round(used[model][0], 1),
                    "of the first": round(used[model][0] / reference, 3),
                    "outputs, MiB": round(BATCH * length * SIZE * 4 / 2**20, 1),
                    "seconds": round(took[model], 3),
                    "times as long": round(took[model] / took[models[0]], 2),
                    "gradient's norm, relative difference": same,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", help="(default: 250 1000 4000; LTC: 64)")
    parser.add_argument("--ltc", action="store_true", help="compare with the LTC of ncps")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    title = f"memory of a gradient over a sequence, batch {BATCH}, hidden size {SIZE}"
    models, lengths = (LTC_MODELS, [64]) if options.ltc else (MODELS, [250, 1000, 4000])
    report(title, compare(models, options.lengths or lengths), options.json)


if __name__ == "__main__":
    main()
