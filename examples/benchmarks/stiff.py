"""Two stiff problems by Rosenbrock methods, SciPy's Radau and an explicit pair: error, work, time.

python examples/benchmarks/stiff.py

Van der Pol's equation, x'' = 100 (1 - x^2) x' - x from (2, 0), over t in (0, 200), and Robertson's
reaction over (0, 1e5), in float64. The error is relative to the largest of each component at the
end, against Radau at a tolerance of 1e-12. Radau's field is in NumPy, which is many times quicker
than a tensor for two numbers; of a batch, which it does not have, 256 samples at once are given
too. The explicit pair is stopped after as many steps as it may take.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from record import report
from scipy.integrate import solve_ivp
from timing import interleaved
from torch import Tensor

from solvers import PID, DormandPrince, NativeSolver, ParameterisedField, Rodas5P, Rosenbrock23

BATCH = 256
MOST_STEPS = 20_000


class StiffProblem(NamedTuple):
    """One system, as a function of arrays ``(..., d)`` of either kind."""

    name: str
    slope: Callable[[Any, Any], list[Any]]
    y0: list[float]
    end: float
    rtol: float
    atol: float

    def of_tensors(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.stack(self.slope(t, y.unbind(-1)), -1)

    def of_arrays(self, t: float, y: np.ndarray[Any, Any]) -> list[Any]:
        return self.slope(t, y)


def van_der_pol(t: Any, y: Any) -> list[Any]:
    x, v = y
    return [v, 100 * (1 - x * x) * v - x]


def robertson(t: Any, y: Any) -> list[Any]:
    a, b, c = y
    slow, back, fast = 0.04 * a, 1e4 * b * c, 3e7 * b * b
    return [back - slow, slow - back - fast, fast]


PROBLEMS = [
    StiffProblem("Van der Pol", van_der_pol, [2.0, 0.0], 200.0, 1e-5, 1e-5),
    StiffProblem("Robertson", robertson, [1.0, 0.0, 0.0], 1e5, 1e-6, 1e-10),
]


def radau(problem: StiffProblem, rtol: float, atol: float) -> Any:
    span = (0.0, problem.end)
    return solve_ivp(problem.of_arrays, span, problem.y0, method="Radau", rtol=rtol, atol=atol)


def compare(problem: StiffProblem, rounds: int) -> list[dict[str, object]]:
    exact = radau(problem, 1e-12, 1e-4 * 1e-12).y[:, -1]
    y0 = torch.tensor([problem.y0], dtype=torch.float64)
    field, span = ParameterisedField(problem.of_tensors), (0.0, problem.end)
    rows: dict[str, dict[str, object]] = {}
    jobs: dict[str, Callable[[], object]] = {}

    def error(y: Any) -> str:
        return f"{np.max(np.abs(np.asarray(y) - exact) / np.abs(exact)):.1e}"

    theirs = radau(problem, problem.rtol, problem.atol)
    work = {"evaluations": theirs.nfev, "Jacobians": theirs.njev}
    rows["SciPy Radau"] = {"relative error": error(theirs.y[:, -1]), **work}
    jobs["SciPy Radau"] = lambda: radau(problem, problem.rtol, problem.atol)
    kinds: list[type[NativeSolver]] = [Rosenbrock23, Rodas5P, DormandPrince]
    for kind in kinds:
        solver = kind(step_size=PID(problem.rtol, problem.atol, max_steps=MOST_STEPS))
        solution = solver.solve(field, y0, span, throw=False)
        stats, arrived = solution.stats, not bool(solution.status.any())
        rows[kind.__name__] = {
            "relative error": error(solution.y[0]) if arrived else f"stopped, {MOST_STEPS} steps",
            "evaluations": int(stats.nfe),
            "Jacobians": int(torch.as_tensor(stats.jacobians).max()),
        }
        if not arrived or not solver.method.jacobians:  # slow, and no part of the comparison
            continue
        for count in (1, BATCH):
            name = kind.__name__ if count == 1 else f"{kind.__name__}, {count} at once"
            many = y0.repeat(count, 1)
            jobs[name] = lambda solver=solver, many=many: solver.solve(field, many, span)
            rows.setdefault(name, rows[kind.__name__])
    seconds = interleaved(jobs, rounds=rounds, warm_up=1)
    return [
        {
            "problem": problem.name,
            "solver": name,
            **row,
            "seconds": round(seconds[name], 3) if name in seconds else "not timed",
        }
        for name, row in rows.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with torch.no_grad():
        rows = [row for problem in PROBLEMS for row in compare(problem, options.rounds)]
    report("Two stiff problems in float64", rows, options.json)


if __name__ == "__main__":
    main()
