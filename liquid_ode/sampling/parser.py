"""The options of the command line of sampling."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import solvers
from liquid_ode.arguments import A_RUN, Parser, add_machine
from liquid_ode.sampling.options import GRIDS, LEARNED, SAMPLERS
from liquid_ode.training.cli import (
    TOLERANCES,
    add_solver_steps,
    add_tolerances,
    key_value,
    solver_options_shown,
)
from liquid_ode.training.machine import PRECISIONS


def make_parser(prog: str | None = None) -> Parser:
    parser = Parser(prog=prog, description="Sample images from a trained run.", allow_abbrev=False)
    add = parser.add_argument
    add(
        "run_dir", metavar="RUN_DIR", type=Path,
        help=f"{A_RUN} (see liquid-ode pretrained), whose images go to runs/pretrained-NAME",
    )  # fmt: skip
    add("-n", type=int, default=64, metavar="N", help="how many images (default: 64)")
    add(
        "--seed", type=int, default=0, metavar="N",
        help="seed of the first image; the next have N+1, N+2, ... (default: 0)",
    )  # fmt: skip
    add(
        "--weights", default="ema", metavar="NAME",
        help="ema, the averaged weights; best, those that were measured best in training; model, "
        "those of the last step; or ema-LENGTH, such as ema-0.1, averaged over another part of the "
        "training (default: ema)",
    )  # fmt: skip
    add_drawing(parser)
    _add_output(parser.add_argument_group("output and speed"))
    return parser


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """The options of sampler, guidance and solver of the cells, the same in all commands."""
    _add_sampler(parser.add_argument_group("sampler"))
    _add_guidance(parser.add_argument_group("classes and guidance"))
    parser.epilog = solver_options_shown()
    cells = parser.add_argument_group("solver of the cells")
    cells.add_argument(
        "--solver", metavar="NAME", help=f"{_solver_names()} (default: the run's own)"
    )
    cells.add_argument(
        "--solver-option", action="append", default=[], type=key_value, metavar="KEY=VALUE",
        help="an option of the solver; repeat it for more (default: none)",
    )  # fmt: skip
    add_solver_steps(cells, "the run's own")
    add_tolerances(cells)
    cells.add_argument(
        "--warm-start", action="store_true", default=None,
        help="begin the cells from their states at the evaluation before, for a liquid_unet that "
        "was trained with --model-option warm_share=X (default: begin anew)",
    )  # fmt: skip


def _solver_names() -> str:
    return (
        f"one of {', '.join(solvers.names())}, torchdiffeq:METHOD, learned:PATH, or your own as "
        "MODULE:CLASS"
    )


def _add_sampler(group: Any) -> None:
    add = group.add_argument
    add(
        "--sampler", default="ddim", metavar="NAME",
        help=f"one of {', '.join(SAMPLERS)}, or {LEARNED}PATH, a file of "
        "liquid-ode train-sampler (default: ddim)",
    )  # fmt: skip
    add(
        "--steps", type=int, metavar="N",
        help="steps of the sampler (default: 50 of ddim and probability-flow, 20 of dpm-solver++, "
        "18 of heun; of ddpm every time step of the training)",
    )  # fmt: skip
    add(
        "--grid", choices=GRIDS,
        help="where the steps go: time steps of the training at equal strides, Karras' levels, or "
        "equal steps of log-SNR (default: trailing of ddim, ddpm and dpm-solver++, karras of heun; "
        "probability-flow is one solve in log-SNR, and with a grid one step of the solver between "
        "each two levels)",
    )  # fmt: skip
    add("--rho", type=float, metavar="X", help="rho of the grid karras (default: 7)")
    add(
        "--sigma-max", type=float, metavar="X",
        help="noise-to-signal ratio to start from, at most (default: of ddim on the grid "
        "trailing the run's sample_sigma_max, or 40 where the noise is predicted and there are so "
        "many time steps up to it; else of ddim and ddpm the schedule's own, of the others 80)",
    )  # fmt: skip
    add("--times", type=int, nargs="+", metavar="T", help="time steps of your own, decreasing")
    add("--sigmas", type=float, nargs="+", metavar="X", help="noise levels of your own, decreasing")
    add("--eta", type=float, metavar="X", help="noise of ddim, 0 to 1 (default: 0)")
    add(
        "--variance", type=float, metavar="X",
        help="of ddpm: from 0, the small posterior variance, to 1, the large one (default: 0)",
    )  # fmt: skip
    add("--churn", type=float, metavar="X", help="noise of heun, 0 or more (default: 0)")
    add(
        "--sampler-solver", metavar="NAME",
        help=f"solver of probability-flow: {_solver_names()} (default: euler)",
    )  # fmt: skip
    add(
        "--sampler-solver-option", action="append", default=[], type=key_value,
        metavar="KEY=VALUE", help="an option of that solver; repeat it for more (default: none)",
    )  # fmt: skip
    for name, text in TOLERANCES.items():
        add(
            f"--sampler-{name}", type=float, metavar="X",
            help=f"{text} tolerance of that solver, if it is driven by one (default: the solver's)",
        )  # fmt: skip


def _add_guidance(group: Any) -> None:
    add = group.add_argument
    add(
        "--class-label", nargs="+", metavar="CLASS",
        help="classes to draw in turn, by number or name, of a class-conditional model "
        "(default: all)",
    )  # fmt: skip
    add(
        "--guidance-scale", type=float, default=1.0, metavar="W",
        help="strength of classifier-free guidance (default: 1, none)",
    )  # fmt: skip
    add(
        "--depth-guidance", type=float, metavar="W",
        help="strength of guidance by integration depth: away from the same model with its cells "
        "stopped after --early-steps (default: 1, none)",
    )  # fmt: skip
    add(
        "--early-steps", type=int, nargs="+", metavar="K",
        help="solver steps after which the cells of the weaker model stop: one number, or one of "
        "each scale",
    )  # fmt: skip
    add(
        "--guidance-rescale", type=float, metavar="X",
        help="from 0 to 1: how far the guided prediction gets the unguided one's contrast "
        "(default: 0)",
    )  # fmt: skip
    add(
        "--guidance-interval", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="noise-to-signal ratios between which there is guidance (default: everywhere)",
    )  # fmt: skip


def _add_output(group: Any) -> None:
    add = group.add_argument
    add(
        "-o", "--output", type=Path, metavar="PNG",
        help="the grid of images (default: in RUN_DIR, by a name that says what made it; none "
        "with --separate or --npz)",
    )  # fmt: skip
    add(
        "--separate", type=Path, metavar="DIR",
        help="write each image there; goes on where it was stopped",
    )  # fmt: skip
    add(
        "--npz", type=Path, metavar="NPZ",
        help="write all images, their seeds and labels there; goes on where it was stopped",
    )  # fmt: skip
    add(
        "--animate", type=Path, nargs="?", const=Path(), metavar="GIF",
        help="show how the first images come about (default: in RUN_DIR, named like a grid)",
    )  # fmt: skip
    add("--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    add_machine(group)
    add(
        "--precision", choices=PRECISIONS, default="auto",
        help="mixed precision (default: auto, bf16 where the device gains from it)",
    )  # fmt: skip
