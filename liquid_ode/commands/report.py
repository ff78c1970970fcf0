"""Write a page of HTML about a run, or about several and how they compare.

liquid-ode report runs/improved-euler-seed0
liquid-ode report runs/improved-euler-seed0 runs/unet-seed0 -o comparison.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from liquid_ode.arguments import A_RUN, WEIGHTS_EXPLAINED, Parser, add_machine, add_weights
from liquid_ode.report import write_reports
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import use_threads


def make_parser(prog: str | None = None) -> Parser:
    parser = Parser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help=A_RUN,
    )
    add(
        "-o", "--output", type=Path, metavar="HTML",
        help="the page (default: RUN/report.html; the comparison of several: comparison.html)",
    )  # fmt: skip
    add(
        "-n", type=int, default=36, metavar="N",
        help="images to draw of each run; 0 draws none (default: 36)",
    )  # fmt: skip
    add("--steps", type=int, default=50, metavar="N", help="DDIM steps (default: 50)")
    add("--seed", type=int, default=0, metavar="N", help="of the first image (default: 0)")
    add_weights(parser, says=WEIGHTS_EXPLAINED)
    add_machine(parser)
    return parser


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Write the reports as the arguments say; returns the exit status."""
    options = make_parser(prog).parse(arguments)
    return run_reporting_errors(lambda: report(options))


def report(options: argparse.Namespace) -> None:
    use_threads(options.threads)
    total = len(options.runs) * options.steps if options.n else 0
    with tqdm(total=total, unit="step", disable=not sys.stderr.isatty()) as bar:
        pages = write_reports(
            options.runs,
            options.output,
            n=options.n,
            steps=options.steps,
            seed=options.seed,
            weights=options.weights,
            device=options.device,
            progress=lambda: bar.update() and None,
        )
    for page in pages:
        print(f"page     {page}")
