"""Measure runs, or sets of images: FD-cnn and KID, contrast, held-out loss, nearest neighbours.

liquid-ode evaluate runs/improved-euler-seed0 runs/unet-euler-seed0 -n 10000
liquid-ode evaluate samples.npz folder/of/images

The reference is CIFAR-10's 10,000 test images, or the folder of --held-out for runs that were
trained on a folder. FD-cnn is a Fréchet distance in the features of the project's own classifier:
it compares with other FD-cnn of the same n, and with the row of real training images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from liquid_ode.arguments import WEIGHTS_EXPLAINED, Parser, add_device, add_weights
from liquid_ode.evaluation import ClassifierFeatures, ImageFeatures, InceptionFeatures
from liquid_ode.measuring import evaluation
from liquid_ode.measuring.tables import tables
from liquid_ode.sampling.options import choose_sampler
from liquid_ode.sampling.parser import add_drawing
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import (
    PRECISIONS,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
    use_threads,
)


def make_parser(prog: str | None = None) -> Parser:
    parser = Parser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add(
        "sources", nargs="+", type=Path, metavar="RUN",
        help="a run directory, pretrained:NAME, a folder of images, or an .npz with images "
        "(N, H, W, C)",
    )  # fmt: skip
    add(
        "-n", type=int, default=10000, metavar="N",
        help="images to sample of each run; 0 measures the held-out loss alone (default: 10000)",
    )  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add_weights(parser, says=WEIGHTS_EXPLAINED)
    add(
        "--held-out", type=Path, metavar="FOLDER",
        help="images to measure against, for runs on a folder (default: CIFAR-10's test images)",
    )  # fmt: skip
    add(
        "--training", type=Path, metavar="FOLDER",
        help="with --held-out, for images from files (default: CIFAR-10's training images)",
    )  # fmt: skip
    add("--data-root", metavar="DIR", help="where CIFAR-10 is cached (default: the run's own)")
    add(
        "--neighbours", type=int, default=8, metavar="N",
        help="samples to draw beside their nearest training images; 0 for none (default: 8)",
    )  # fmt: skip
    add(
        "--inception", nargs="?", const="", metavar="FILE",
        help="measure the FID, in the features of Inception, fetched by torch-fidelity or read "
        "from FILE, in place of FD-cnn",
    )  # fmt: skip
    add("--batch-size", type=int, default=250, metavar="N", help="(default: 250)")
    add_device(parser)
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    add("--precision", choices=PRECISIONS, default="auto", help="of the sampling (default: auto)")
    add("--json", type=Path, metavar="FILE", help="also write all records here")
    add_drawing(parser)
    return parser


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Evaluate as the arguments say; returns the exit status."""
    options = make_parser(prog).parse(arguments)
    return run_reporting_errors(lambda: evaluate(options))


def evaluate(options: argparse.Namespace) -> None:
    if options.n < 0 or options.neighbours < 0 or options.batch_size < 1:
        raise ValueError(
            "-n and --neighbours must be at least 0 and --batch-size at least 1, not "
            f"{options.n}, {options.neighbours} and {options.batch_size}"
        )
    keep_freed_memory()
    use_threads(options.threads)
    features: ImageFeatures = (
        ClassifierFeatures()
        if options.inception is None
        else InceptionFeatures(options.inception or None)
    )
    device = resolve_device(options.device)
    options.precision = resolve_precision(options.precision, device)
    choose_sampler(options)  # after which the options hold the number of steps that it takes
    plan = evaluation.Plan(
        options,
        n=options.n,
        seed=options.seed,
        held_out=options.held_out,
        training=options.training,
        data_root=options.data_root,
        neighbours=options.neighbours,
        batch_size=options.batch_size,
        device=device,
        title=features.title,
    )
    records = evaluation.evaluate_all(options.sources, plan, features)
    print(tables(records))
    if options.json is not None:
        evaluation.save(options.json, records)
        print(f"records  {options.json}")
