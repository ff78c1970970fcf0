"""Time of recurrent cells over a sequence: batch 64, length 64, input 64, hidden 64, float32.

python examples/benchmarks/cell_speed.py
pip install '.[bench]'   # for the rows of ncps

Every row runs forward and backward, to the gradients of all parameters, four times in a row as in
training, where each finds the caches as the last one left them. The LTC and CfC of
liquid_ode hold the very weights of those of ncps, and their outputs are compared before anything
is timed. Memory that is freed is kept for the next run, as in training, since page faults would
otherwise decide over the figures of those that allocate most, which are those of ncps. "Irregular"
gives every input of every sample a duration of its own; ncps does that wrongly (its durations
have to be the same for all samples), so there it has no row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from record import report
from timing import interleaved
from torch import Tensor, nn

from liquid_ode import CfCCell, LiquidRNN, LTCCell, Wiring, from_ncps
from liquid_ode.training.machine import keep_freed_memory
from solvers import Euler, ExponentialEuler, Uniform

BATCH, LENGTH, SIZE = 64, 64, 64
Run = Callable[[], Tensor]


def reference_pairs(x: Tensor) -> dict[str, nn.Module]:
    """ncps' networks and ours with their weights; none where ncps is not installed."""
    try:
        from ncps.torch import LTC, CfC
    except ImportError:
        return {}
    found: dict[str, nn.Module] = {}
    for name, theirs in (("LTC, 6 unfolds", LTC(SIZE, SIZE)), ("CfC", CfC(SIZE, SIZE))):
        ours = from_ncps(theirs)
        torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=1e-4, atol=1e-5)
        found |= {f"ncps {name}": theirs, f"the same, liquid_ode {name}": ours}
    return found


def networks(x: Tensor) -> dict[str, nn.Module]:
    rnn = partial(LiquidRNN, SIZE, SIZE)
    sparse = Wiring.random(SIZE, sparsity=0.8)
    return {
        "nn.GRU": nn.GRU(SIZE, SIZE, batch_first=True),
        **reference_pairs(x),
        "LiquidRNN, 6 equal Euler steps": rnn(solver=Euler(6, step_size=Uniform())),
        "LiquidRNN, 6 adaptive Euler steps": rnn(solver=Euler(6)),
        "LiquidRNN, 6 exponential Euler steps": rnn(solver=ExponentialEuler(6)),
        "LiquidRNN, 1 Euler step": rnn(solver=Euler(1, step_size=Uniform())),
        "LiquidRNN, 6 equal steps, sparse wiring": rnn(
            solver=Euler(6, step_size=Uniform()), wiring=sparse
        ),
        "LTC, sparse wiring": rnn(cell=LTCCell, wiring=sparse),
        "CfC, sparse wiring": rnn(cell=CfCCell, wiring=sparse),
        "CfC without backbone": rnn(cell=partial(CfCCell, backbone_layers=0)),
    }


def runs(x: Tensor) -> dict[str, Run]:
    models = networks(x)
    found: dict[str, Run] = {name: partial(first, model, x) for name, model in models.items()}
    durations = 0.5 + torch.rand(BATCH, LENGTH)
    irregular = {
        "LiquidRNN, 6 equal steps, irregular": models["LiquidRNN, 6 equal Euler steps"],
        "LTC, irregular": LiquidRNN(SIZE, SIZE, cell=LTCCell),
        "CfC, irregular": LiquidRNN(SIZE, SIZE, cell=CfCCell),
    }
    for name, model in irregular.items():
        found[name] = partial(first, model, x, durations=durations)
    return found


def first(model: nn.Module, *arguments: Any, **options: Any) -> Tensor:
    return model(*arguments, **options)[0]


def forward_backward(run: Run) -> None:
    run().sum().backward()


def compare(rounds: int) -> list[dict[str, object]]:
    torch.manual_seed(0)
    jobs = runs(torch.randn(BATCH, LENGTH, SIZE))
    seconds = interleaved(
        {name: partial(forward_backward, run) for name, run in jobs.items()},
        rounds=rounds,
        repeats=4,
    )
    return [row(name, seconds) for name in seconds]


def row(name: str, seconds: Mapping[str, float]) -> dict[str, object]:
    def ratio(other: str) -> object:
        return round(seconds[other] / seconds[name], 2) if other in seconds else "-"

    return {
        "network": name,
        "ms": round(1e3 * seconds[name], 1),
        "ncps LTC / this": ratio("ncps LTC, 6 unfolds"),
        "ncps CfC / this": ratio("ncps CfC"),
        "this / nn.GRU": round(seconds[name] / seconds["nn.GRU"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="(default: 15)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    keep_freed_memory()
    title = "cells over a sequence, forward + backward, batch 64, length 64, hidden 64"
    report(title, compare(options.rounds), options.json)


if __name__ == "__main__":
    main()
