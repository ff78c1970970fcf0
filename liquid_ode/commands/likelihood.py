"""Bits per dimension of images under a trained run, with the convergence of the figure.

liquid-ode likelihood runs/unet -n 64 --steps 8 16

Each line solves with N and with 2N steps and gives what that changed: a figure is as good as this
difference is small. The probability flow starts at the schedule's first noise level and ends at
--sigma-max, where the prior is the sampler's own. The standard errors are those of the random
probes alone, and of the images as a sample of all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

import solvers
from liquid_ode.arguments import Parser, add_machine, add_run, add_weights, command_parser
from liquid_ode.diffusion import (
    GaussianDequantisation,
    Likelihood,
    LogSNRPath,
    UniformDequantisation,
)
from liquid_ode.measuring.run_images import run_images
from liquid_ode.training import load_config, load_run
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import use_threads

DEQUANTISATIONS = {"gaussian": GaussianDequantisation(), "uniform": UniformDequantisation()}


def make_parser(prog: str | None = None) -> Parser:
    parser = command_parser(prog, __doc__)
    add = parser.add_argument
    add_run(parser)
    add("-n", type=int, default=64, metavar="N", help="how many images (default: 64)")
    add(
        "--steps", type=int, nargs="+", default=[8, 16], metavar="N",
        help="steps of the solver, each also doubled (default: 8 16)",
    )  # fmt: skip
    add("--solver", default="classic_rk4", help="an explicit solver (default: classic_rk4)")
    add(
        "--dequantisation", choices=list(DEQUANTISATIONS), default="gaussian",
        help="noise that makes a density of 256 values: Gaussian, of the first noise level, with "
        "a discretised last step; or uniform over a value's bin (default: gaussian)",
    )  # fmt: skip
    add("--sigma-max", type=float, default=80.0, metavar="X", help="(default: 80)")
    add("--probes", type=int, default=2, metavar="N", help="for each image (default: 2)")
    add_weights(parser)
    add("--seed", type=int, default=0, metavar="N", help="of noise and probes (default: 0)")
    add("--batch-size", type=int, default=32, metavar="N", help="images at a time (default: 32)")
    add("--data-root", metavar="DIR", help="where the data set is cached (default: the run's own)")
    add_machine(parser)
    return parser


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Measure as the arguments say; returns the exit status."""
    options = make_parser(prog).parse(arguments)
    return run_reporting_errors(lambda: measure(options))


def measure(options: argparse.Namespace) -> None:
    chosen = [
        Likelihood(
            solvers.get(options.solver), steps, LogSNRPath(options.sigma_max),
            DEQUANTISATIONS[options.dequantisation], options.probes,
        )
        for steps in options.steps
    ]  # fmt: skip
    use_threads(options.threads)
    data = run_images(load_config(options.run_dir), options.n, options.data_root)
    diffusion = load_run(options.run_dir, weights=options.weights, device=options.device)
    first, last = (chosen[0].path.sigma_range(diffusion.schedule)[i] for i in (1, 0))
    print(
        f"{options.n} {data.source}, {options.solver} from sigma {first:.4g} to {last:.6g}, "
        f"{options.dequantisation} dequantisation, {options.probes} probes"
    )
    print("evaluations    bits/dim at N    at 2N  difference  error of probes  of images")
    for likelihood in chosen:
        with tqdm(total=options.n, unit="image", disable=not sys.stderr.isatty()) as bar:

            def show(done: int, bar: Any = bar) -> None:
                bar.update(done - bar.n)

            found = likelihood.bits_per_dim(
                diffusion, data.images, seeds=options.seed, class_labels=data.labels,
                batch_size=options.batch_size, callback=show,
            )  # fmt: skip
        low, high = found.evaluations
        print(
            f"{low:5} {high:5} {found.coarse:17.4f} {found.value:8.4f} "
            f"{found.step_difference:+11.4f} {found.probe_error:16.4f} {found.image_error:10.4f}"
        )
