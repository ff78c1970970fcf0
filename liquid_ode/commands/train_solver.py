"""Train a solver's coefficients on the fields that a trained model's liquid cells meet.

liquid-ode train-solver runs/improved-euler-seed0 -o euler.safetensors
liquid-ode sample runs/improved-euler-seed0 --solver learned:euler.safetensors

The cells are given images at random noise levels, the coefficients are fitted to a tight solution
of what they then solve, and the errors are measured on images held out: the test images of
CIFAR-10, or the last quarter of a folder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import solvers
from liquid_ode.arguments import Parser, add_device, add_run, command_parser
from liquid_ode.measuring import equal_evaluations
from liquid_ode.measuring.cell_problems import cell_problems
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import use_threads
from liquid_ode.training.run_directory import RunDirectory


def make_parser(prog: str | None = None) -> Parser:
    parser = command_parser(prog, __doc__)
    add = parser.add_argument
    add_run(parser)
    add(
        "--evaluations", type=int, nargs="+", default=[3, 5, 7], metavar="N",
        help="how many evaluations a solve may make (default: 3 5 7)",
    )  # fmt: skip
    add(
        "--images", type=int, default=256, metavar="N",
        help="images to train on, and to measure on (default: 256)",
    )  # fmt: skip
    add(
        "--rows", type=int, default=256, metavar="N",
        help="states to keep of each cell (default: 256)",
    )  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add("--data-root", metavar="DIR", help="where the data set is cached (default: the run's own)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    add_device(parser)
    add(
        "-o", "--output", type=Path, metavar="FILE",
        help="the trained solver (default: RUN_DIR/solver.safetensors)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Train as the arguments say; returns the exit status."""
    options = make_parser(prog).parse(arguments)
    return run_reporting_errors(lambda: train(options))


def train(options: argparse.Namespace) -> None:
    use_threads(options.threads)  # the arrays are small: more gain nothing
    run = RunDirectory(options.run_dir)
    training, held_out = cell_problems(
        options.run_dir, images=options.images, rows=options.rows, seed=options.seed,
        data_root=options.data_root, device=options.device,
    )  # fmt: skip
    states = sum(len(problem.y0) for problem in training)
    print(f"training on {states} states of {len(training)} cells")
    began = time.perf_counter()
    solver = solvers.train_solver(
        training, options.evaluations, held_out=held_out, seed=options.seed
    )
    print(f"trained in {time.perf_counter() - began:.0f} s")
    path = solver.save(options.output or run.outputs / "solver.safetensors")
    print("relative error on held-out images, by evaluations")
    print(equal_evaluations.as_table(equal_evaluations.compare(solver, held_out)))
    print(f"solver   {path}, to be named as --solver learned:{path}")
