"""What else a trained run does with images: reconstruct, interpolate, vary and fill them in.

liquid-ode edit runs/unet

It writes four pictures: RUN_DIR/edits/reconstruct.png (rows: images; by DDIM's inverse; by Heun's
method), interpolate.png (each row between two images, through their noise), vary.png (from the
image to ever more noise before sampling) and inpaint.png (rows: images; what is known of them;
filled in twice, by two seeds).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import solvers
from liquid_ode.arguments import Parser, add_machine, add_run, add_weights, command_parser
from liquid_ode.diffusion import (
    DDIM,
    DDIMInversion,
    FlowInversion,
    GaussianDiffusion,
    LogSNRPath,
    ProbabilityFlow,
    RePaint,
    TrailingGrid,
    arc,
    image_to_image,
)
from liquid_ode.evaluation import save_grid
from liquid_ode.measuring.run_images import RunImages, run_images
from liquid_ode.training import load_config, load_run
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import use_threads
from liquid_ode.training.run_directory import RunDirectory

NOISE = [0.1, 0.3, 0.7, 1.5, 3.0, 6.0, 20.0]
FRAMES = 8


def make_parser(prog: str | None = None) -> Parser:
    parser = command_parser(prog, __doc__)
    add = parser.add_argument
    add_run(parser)
    add("-n", type=int, default=8, metavar="N", help="how many images, even (default: 8)")
    add("--steps", type=int, default=50, metavar="N", help="steps of each method (default: 50)")
    add("--resamplings", type=int, default=5, metavar="N", help="of RePaint (default: 5)")
    add_weights(parser)
    add("--data-root", metavar="DIR", help="where the data set is cached (default: the run's own)")
    add_machine(parser)
    add("-o", "--output", type=Path, metavar="DIR", help="(default: RUN_DIR/edits)")
    return parser


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Edit as the arguments say; returns the exit status."""
    options = make_parser(prog).parse(arguments)
    return run_reporting_errors(lambda: edit(options))


def edit(options: argparse.Namespace) -> None:
    use_threads(options.threads)
    if options.n < 2 or options.n % 2:
        raise ValueError(f"-n must be even, since images are taken in pairs, not {options.n}")
    data = run_images(load_config(options.run_dir), options.n, options.data_root)
    diffusion = load_run(options.run_dir, weights=options.weights, device=options.device)
    output = options.output or RunDirectory(options.run_dir).outputs / "edits"
    for make in (reconstruct, interpolate, vary, inpaint):
        rows = torch.cat([row.cpu() for row in make(diffusion, data, options)])
        columns = options.n if make in (reconstruct, inpaint) else FRAMES
        print(f"{make.__name__:<12} {save_grid(rows, output / f'{make.__name__}.png', columns)}")


def reconstruct(
    diffusion: GaussianDiffusion, data: RunImages, options: argparse.Namespace
) -> list[torch.Tensor]:
    rows = [data.images]
    for inversion in (
        DDIMInversion(DDIM(TrailingGrid(options.steps, sigma_max=80.0))),
        FlowInversion(solvers.Heun(steps=options.steps // 2)),
    ):
        rows.append(inversion.reconstruct(diffusion, data.images, class_labels=data.labels).cpu())
        error = (rows[-1] - data.images).square().mean().sqrt()
        print(f"{type(inversion).__name__:<14} is off by {127.5 * error:.2f} of 255 grey levels")
    return rows


def interpolate(
    diffusion: GaussianDiffusion, data: RunImages, options: argparse.Namespace
) -> list[torch.Tensor]:
    inversion = FlowInversion(solvers.Heun(steps=options.steps // 2))
    noise = inversion.invert(diffusion, data.images, class_labels=data.labels)
    frames = arc(noise[0::2], noise[1::2], FRAMES)  # (FRAMES, N/2, C, H, W)
    between = frames.transpose(0, 1).flatten(0, 1)
    labels = None if data.labels is None else data.labels[0::2].repeat_interleave(FRAMES)
    return [
        inversion.sampler.sample(
            diffusion, len(between), initial_noise=between, class_labels=labels
        )
    ]


def vary(
    diffusion: GaussianDiffusion, data: RunImages, options: argparse.Namespace
) -> list[torch.Tensor]:
    columns = [data.images]
    for sigma in NOISE:
        sampler = ProbabilityFlow(solvers.Heun(steps=options.steps // 2), LogSNRPath(sigma))
        made = image_to_image(sampler, diffusion, data.images, class_labels=data.labels)
        columns.append(made.cpu())
    return [torch.stack(columns, 1).flatten(0, 1)]  # a row of each image


def inpaint(
    diffusion: GaussianDiffusion, data: RunImages, options: argparse.Namespace
) -> list[torch.Tensor]:
    height, width = data.images.shape[-2:]
    known = torch.ones(1, 1, height, width)
    known[..., height // 4 : -(height // 4), width // 4 : -(width // 4)] = 0  # a hole of a quarter
    grid = TrailingGrid(options.steps, sigma_max=80.0)
    repaint = RePaint(DDIM(grid, eta=1.0), resamplings=options.resamplings)
    filled = [
        repaint.inpaint(diffusion, data.images, known, seeds=seed, class_labels=data.labels)
        for seed in (0, options.n)
    ]
    return [data.images, data.images * known, *filled]
