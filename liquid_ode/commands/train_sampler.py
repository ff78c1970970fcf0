"""Train a sampler of few evaluations on a trained run's own denoiser.

liquid-ode train-sampler runs/unet --evaluations 10
liquid-ode sample runs/unet --sampler learned:runs/unet/sampler-10.safetensors

Its noise levels and weights are fitted to the images that a sampler of many evaluations makes of
the same noise, and its error is measured on noise held out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from liquid_ode.arguments import Parser, add_device, add_run, add_weights, command_parser
from liquid_ode.diffusion import (
    DDIM,
    KarrasGrid,
    KarrasHeun,
    Sampler,
    SamplerProgress,
    train_sampler,
)
from liquid_ode.training import load_config, load_run
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.run_directory import RunDirectory


def heun(steps: int = 24) -> Sampler:
    return KarrasHeun(KarrasGrid(steps))


def ddim(steps: int = 50) -> Sampler:
    return DDIM(steps)


TEACHERS = {"heun": heun, "ddim": ddim}


def make_parser(prog: str | None = None) -> Parser:
    parser = command_parser(prog, __doc__)
    add = parser.add_argument
    add_run(parser)
    add("--evaluations", type=int, default=10, metavar="N", help="of the sampler (default: 10)")
    add("--images", type=int, default=256, metavar="N", help="to train on (default: 256)")
    add("--held-out", type=int, default=64, metavar="N", help="to measure on (default: 64)")
    add("--steps", type=int, default=200, metavar="N", help="of training (default: 200)")
    add("--batch-size", type=int, default=16, metavar="N", help="images a step (default: 16)")
    add("--lr", type=float, default=0.003, metavar="X", help="learning rate (default: 0.003)")
    add(
        "--teacher", choices=list(TEACHERS), default="ddim",
        help="the sampler to learn from: DDIM, whose images a small model makes better, or Heun "
        "on Karras' levels, which follows the ODE more exactly (default: ddim)",
    )  # fmt: skip
    add("--teacher-steps", type=int, metavar="N", help="(default: 50 of ddim, 24 of heun)")
    add_weights(parser)
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add_device(parser)
    add(
        "-o", "--output", type=Path, metavar="FILE",
        help="the trained sampler (default: RUN_DIR/sampler-N.safetensors)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Train as the arguments say; returns the exit status."""
    options = make_parser(prog).parse(arguments)
    return run_reporting_errors(lambda: train(options))


def train(options: argparse.Namespace) -> None:
    config = load_config(options.run_dir)
    number = () if options.teacher_steps is None else (options.teacher_steps,)
    teacher = TEACHERS[options.teacher](*number)
    diffusion = load_run(options.run_dir, weights=options.weights, device=options.device)
    began = time.perf_counter()
    with tqdm(total=options.steps, unit="step", disable=not sys.stderr.isatty()) as bar:

        def show(progress: SamplerProgress) -> None:
            bar.set_postfix_str(f"error {progress.error:.4f}")
            bar.update()

        sampler = train_sampler(
            diffusion, options.evaluations,
            teacher=teacher,
            images=options.images, held_out=options.held_out, steps=options.steps,
            batch_size=options.batch_size, lr=options.lr, image_shape=config.image_shape,
            seed=options.seed, callback=show,
        )  # fmt: skip
    print(f"trained in {time.perf_counter() - began:.0f} s")
    default = RunDirectory(options.run_dir).outputs / f"sampler-{options.evaluations}.safetensors"
    path = sampler.save(options.output or default)
    for name, text in (
        ("untrained", "DPM-Solver++ (2M) on Karras' levels"), ("trained", "the trained sampler"),
    ):  # fmt: skip
        print(f"{sampler.errors[name]:.4f}  error of {text} on held-out noise")
    print(f"sampler  {path}, to be named as --sampler learned:{path}")
