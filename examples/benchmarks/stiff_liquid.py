"""Evaluations that each solver needs for an error of 1e-3 on stiff liquid fields.

python examples/benchmarks/stiff_liquid.py

Random liquid fields, tau dh/dt = -h + tanh(W h + drive), hidden 64, W orthogonal with gain 0.8,
tau log-uniform in [0.1, 5], h from rest over t in (0, 1). Each solver's steps or
tolerance (in steps of 10^0.1) are the loosest at which the error, RMS over all elements, is at
most 1e-3; evaluations are the mean over the samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from random_fields import stiff_liquid_field
from record import report

import solvers

ERROR = 1e-3


def settings(name: str) -> Iterator[tuple[str, solvers.Solver]]:
    """The solver from its loosest setting to its tightest."""
    known = solvers.options(name)
    if known.get("steps") is not None:
        for steps in range(1, 400):
            yield f"{steps} steps", solvers.get(name, steps=steps)
    else:
        for tenth in range(80):
            tolerance = 10 ** (-tenth / 10)
            yield f"tolerance {tolerance:.1e}", solvers.get(name, rtol=tolerance, atol=tolerance)


def needed(names: Iterable[str]) -> list[dict[str, object]]:
    field = stiff_liquid_field(seed=0, batch=256, hidden=64)
    y0 = torch.zeros_like(field.drive)
    exact = solvers.get("dormand_prince", rtol=1e-10, atol=1e-11).solve(field, y0).y
    rows = []
    for name in names:
        for setting, solver in settings(name):
            solution = solver.solve(field, y0, throw=False)
            error = float((solution.y - exact).square().mean().sqrt())
            if bool(solution.status.any()) or not error <= ERROR:
                continue
            nfe = float(torch.as_tensor(solution.stats.nfe).double().mean())
            row = {"solver": name, "evaluations": round(nfe, 1), "setting": setting}
            rows.append({**row, "rms error": f"{error:.1e}"})
            break
    return sorted(rows, key=lambda row: float(str(row["evaluations"])))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    names = [*solvers.names(), "torchdiffeq:bosh3", "torchdiffeq:adaptive_heun"]
    report("stiff liquid fields: evaluations for an error of 1e-3", needed(names), options.json)


if __name__ == "__main__":
    main()
