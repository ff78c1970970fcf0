"""Error and time of a learned solver beside others, at equal numbers of evaluations.

python examples/benchmarks/learned_solver.py
python examples/benchmarks/learned_solver.py runs/improved-euler-seed0

Without a run the fields are random liquid fields, tau log-uniform in [0.1, 5], trained on eight and
measured on eight others. With the directory of a trained run they are those of its cells, trained
on the run's images and measured on test images. Errors are in float64, relative to the state.
Milliseconds are medians of one thread in float32 on 4,096 states of 40 units: the detail cell of
`improved` with 16 images.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import torch
from random_fields import stiff_liquid_field
from record import report
from timing import interleaved

import solvers

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples/, where studies is
from liquid_ode.measuring import equal_evaluations
from liquid_ode.measuring.cell_problems import cell_problems


def random_problem(
    seed: int, batch: int = 64, hidden: int = 32, dtype: torch.dtype = torch.float64
) -> solvers.Problem:
    """A cell at rest that meets an input."""
    field = stiff_liquid_field(seed, batch, hidden, dtype)
    return solvers.Problem(field, torch.zeros(batch, hidden, dtype=dtype))


@torch.no_grad()
def solve(solver: solvers.Solver, problem: solvers.Problem) -> None:
    solver.solve(problem.field, problem.y0, problem.t_span, throw=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("run_dir", nargs="?", type=Path, metavar="RUN_DIR", help="(default: random fields)")
    add("--evaluations", type=int, nargs="+", default=[3, 4, 5, 7, 8], metavar="N")
    add("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    add("--rounds", type=int, default=30, help="timed repeats (default: 30)")
    add("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()

    torch.set_num_threads(1)
    if options.run_dir is None:
        about = "random liquid fields"
        training = [random_problem(100 * options.seed + index) for index in range(8)]
        held_out = [random_problem(100 * options.seed + 50 + index) for index in range(8)]
    else:
        about = f"cells of {options.run_dir.name}, test images"
        training, held_out = cell_problems(options.run_dir, seed=options.seed, device="cpu")
    began = time.perf_counter()
    learned = solvers.train_solver(
        training, options.evaluations, held_out=held_out, seed=options.seed
    )
    seconds = time.perf_counter() - began
    entries = equal_evaluations.compare(learned, held_out)
    timed = random_problem(options.seed, 4096, 40, torch.float32)
    jobs = {str(place): partial(solve, entry.solver, timed) for place, entry in enumerate(entries)}
    times = interleaved(jobs, rounds=options.rounds).values()
    best = {entry.budget: entry.error for entry in entries if entry.name == "learned"}
    rows = [
        {
            "budget": entry.budget,
            "solver": entry.name,
            "evaluations": entry.evaluations,
            "relative error": f"{entry.error:.2e}",
            "of learned's": f"{entry.error / best[entry.budget]:.3g}",
            "ms": f"{1e3 * duration:.2f}",
        }
        for entry, duration in zip(entries, times, strict=True)
    ]
    report(f"learned solver, {about}; trained in {seconds:.0f} s", rows, options.json)


if __name__ == "__main__":
    main()
