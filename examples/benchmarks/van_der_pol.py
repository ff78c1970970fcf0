"""256 Van der Pol oscillators by DormandPrince at tolerance 1e-5, float32: error and time.

pip install '.[bench]'   # for the rows of torchode
python examples/benchmarks/van_der_pol.py

x'' = mu (1 - x^2) x' - x from (2, 0) over t in (0, 20), mu log-uniform from 0.5 to 50. The error is
against a solve in float64 at tolerance 1e-11. torchdiffeq steps all oscillators together;
torchode and this package each by itself. torchode's default is eager; its own documentation
recommends TorchScript, which is a row of its own. In float32 rounding moves the errors by a factor
of two or three, so they are given in float64 too. "PI" is PID(proportional=0.4, integral=0.6).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import report
from timing import interleaved
from torch import Tensor, nn
from torchdiffeq import odeint

from solvers import PID, DormandPrince, ParameterisedField, Tsit5

SAMPLES, TOLERANCE = 256, 1e-5


def slope(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack((v, mu * (1 - x * x) * v - x), -1)


class Oscillators(nn.Module):
    """The same field as a module, which TorchScript can take."""

    def __init__(self, mu: Tensor) -> None:
        super().__init__()
        self.register_buffer("mu", mu)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        x, v = y.unbind(-1)
        return torch.stack((v, self.mu * (1 - x * x) * v - x), -1)


def torchode_rows(mu: Tensor, y0: Tensor, end: float) -> dict[str, Callable[[], Tensor]]:
    """None where torchode is not installed."""
    try:
        import torchode
    except ImportError:
        return {}

    def solver() -> nn.Module:
        term = torchode.ODETerm(Oscillators(mu))
        control = torchode.IntegralController(atol=TOLERANCE, rtol=TOLERANCE, term=term)
        return torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)

    def run(solver: Any) -> Callable[[], Tensor]:
        def solve() -> Tensor:
            start, stop = y0.new_zeros(SAMPLES), y0.new_full((SAMPLES,), end)
            problem = torchode.InitialValueProblem(y0=y0, t_start=start, t_end=stop)
            return solver.solve(problem).ys[:, -1]

        return solve

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        scripted = torch.jit.script(solver())
    return {
        "torchode Dopri5": run(solver()),
        "torchode Dopri5, TorchScript": run(scripted),
    }


def solves(mu: Tensor, y0: Tensor, end: float) -> dict[str, Callable[[], Tensor]]:
    """Every solver's end state, in the precision of ``y0``."""
    field = ParameterisedField(slope, mu)

    def native(solver: DormandPrince | Tsit5) -> Callable[[], Tensor]:
        return lambda: solver.solve(field, y0, (0.0, end)).y

    def torchdiffeq() -> Tensor:
        span = y0.new_tensor([0.0, end])
        return odeint(
            lambda t, y: slope(t, y, mu), y0, span, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5"
        )[-1]

    integral = PID(TOLERANCE, TOLERANCE)
    smooth = PID(TOLERANCE, TOLERANCE, proportional=0.4, integral=0.6)
    return {
        "torchdiffeq dopri5": torchdiffeq,
        **torchode_rows(mu, y0, end),
        "DormandPrince(PID())": native(DormandPrince(step_size=integral)),
        "DormandPrince(PID()), compiled": native(DormandPrince(step_size=integral, compiled=True)),
        "DormandPrince(PI)": native(DormandPrince(step_size=smooth)),
        "DormandPrince(PI), compiled": native(DormandPrince(step_size=smooth, compiled=True)),
        "Tsit5(PID())": native(Tsit5(step_size=integral)),
    }


def compare(end: float, rounds: int) -> list[dict[str, object]]:
    mu = torch.logspace(-0.30103, 1.69897, SAMPLES, dtype=torch.float64)
    start = torch.tensor([[2.0, 0.0]], dtype=torch.float64).repeat(SAMPLES, 1)
    tight = DormandPrince(step_size=PID(1e-11, 1e-11, max_steps=1_000_000))
    exact = tight.solve(ParameterisedField(slope, mu), start, (0.0, end)).y
    rows, wide = solves(mu.float(), start.float(), end), solves(mu, start, end)

    def error(solve: Callable[[], Tensor]) -> str:
        return f"{(solve().double() - exact).square().mean().sqrt():.1e}"

    with torch.no_grad():
        errors = {name: (error(rows[name]), error(wide[name])) for name in rows}
        seconds = interleaved(rows, rounds=rounds, warm_up=2)
    ours = seconds["DormandPrince(PID())"]
    return [
        {
            "solver": name,
            "seconds": round(seconds[name], 3),
            "of DormandPrince(PID())": round(seconds[name] / ours, 2),
            "rms error": errors[name][0],
            "rms error in float64": errors[name][1],
        }
        for name in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--end", type=float, default=20.0, help="end of the time (default: 20)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    title = f"256 Van der Pol oscillators, DormandPrince, tolerance 1e-5, t in (0, {options.end:g})"
    report(title, compare(options.end, options.rounds), options.json)


if __name__ == "__main__":
    main()
