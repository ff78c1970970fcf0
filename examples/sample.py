"""Sample images from a trained run by DDIM, with the run's own solver or another.

python examples/sample.py runs/improved-euler-seed0 -n 64 --steps 50
python examples/sample.py runs/improved-euler-seed0 --solver midpoint --solver-steps 2 3 4
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import solvers
from liquid_ode.diffusion import DDIM, GaussianDiffusion
from liquid_ode.evaluation import save_grid, save_image
from liquid_ode.training import TrainConfig, load_config, load_run
from liquid_ode.training.cli import (
    TOLERANCES,
    add_solver_steps,
    add_tolerances,
    key_value,
    run_reporting_errors,
)
from liquid_ode.training.machine import PRECISIONS, autocast, resolve_device, resolve_precision


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("run_dir", metavar="RUN_DIR", type=Path, help="the directory of a trained run")
    add("-n", type=int, default=64, metavar="N", help="how many images (default: 64)")
    add("--steps", type=int, default=50, metavar="N", help="DDIM steps (default: 50)")
    add("--eta", type=float, default=0.0, metavar="X", help="noise of DDIM, 0 to 1 (default: 0)")
    add(
        "--seed", type=int, default=0, metavar="N",
        help="seed of the first image; the next have N+1, N+2, ... (default: 0)",
    )  # fmt: skip
    add(
        "--weights", choices=["ema", "model"], default="ema",
        help="averaged weights, or those of the last step (default: ema)",
    )  # fmt: skip
    add(
        "--class-label", type=int, metavar="N",
        help="class to draw, of a class-conditional model (default: all in turn)",
    )  # fmt: skip
    add(
        "--guidance-scale", type=float, default=1.0, metavar="X",
        help="strength of classifier-free guidance (default: 1, none)",
    )  # fmt: skip

    cells = parser.add_argument_group("solver of the cells")
    cells.add_argument(
        "--solver", metavar="NAME",
        help=f"one of {', '.join(solvers.names())}, torchdiffeq:METHOD, learned:PATH "
        "(default: the run's own)",
    )  # fmt: skip
    cells.add_argument(
        "--solver-option", action="append", default=[], type=key_value, metavar="KEY=VALUE",
        help="an option of the solver; repeat it for more (default: none)",
    )  # fmt: skip
    add_solver_steps(cells, "the run's own")
    add_tolerances(cells)

    out = parser.add_argument_group("output and speed")
    out.add_argument(
        "-o", "--output", type=Path, metavar="PNG",
        help="the grid of images (default: RUN_DIR/samples.png, with the solver's name if given)",
    )  # fmt: skip
    out.add_argument("--separate", type=Path, metavar="DIR", help="also write each image there")
    out.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)"
    )
    out.add_argument("--device", choices=["cpu", "cuda", "mps"], help="(default: the best)")
    out.add_argument(
        "--precision", choices=PRECISIONS, default="auto",
        help="mixed precision (default: auto, bf16 where the device gains from it)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Sample as the arguments say; returns the exit status."""
    options = make_parser().parse_args(arguments)
    return run_reporting_errors(lambda: sample(options))


def sample(options: argparse.Namespace) -> None:
    if options.n < 1:
        raise ValueError(f"-n must be at least 1, not {options.n}")
    config = load_config(options.run_dir)
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    solver = choose_solver(config, options)
    diffusion = load_run(
        options.run_dir,
        solver=solver,
        solver_steps=options.solver_steps,
        weights=options.weights,
        device=device,
    )
    print(
        f"{config.model} of {options.run_dir} ({options.weights} weights), solver "
        f"{options.solver or config.solver}, {options.steps} DDIM steps, {device}, "
        f"{'float32' if precision == 'no' else precision}"
    )
    began = time.perf_counter()
    with autocast(device, precision):
        images = draw(diffusion, config, options)
    seconds = time.perf_counter() - began
    print(f"{options.n} images in {seconds:.1f} s ({options.n / seconds:.1f} images/s)")

    # A name of its own for each solver, so that they can be compared.
    name = "samples" if options.solver is None else f"samples-{options.solver}"
    name = re.sub(r"[^\w.-]+", "-", name)
    output = options.output or options.run_dir / f"{name}.png"
    print(f"grid     {save_grid(images, output, math.ceil(math.sqrt(options.n)))}")
    if options.separate is not None:
        for index, image in enumerate(images):
            save_image(image, options.separate / f"seed_{options.seed + index:06d}.png")
        print(f"images   {options.separate}")


def choose_solver(config: TrainConfig, options: argparse.Namespace) -> solvers.Solver | None:
    """The solver that the options name, or None for the run's own."""
    tolerances = {name: getattr(options, name) for name in TOLERANCES}
    changes = dict(options.solver_option)
    changes |= {name: value for name, value in tolerances.items() if value is not None}
    config.refuse_steps(changes)
    if options.solver is not None:
        return solvers.get(options.solver, **changes)
    if changes:
        return solvers.get(config.solver, **{**config.solver_options, **changes})
    return None


def draw(diffusion: GaussianDiffusion, config: TrainConfig, options: argparse.Namespace) -> Tensor:
    """(N, 3, H, W) in [-1, 1]."""
    labels: Tensor | int | None = options.class_label
    if labels is None and diffusion.num_classes is not None:
        labels = torch.arange(options.n) % diffusion.num_classes
    batches = math.ceil(options.n / max(options.batch_size, 1))
    with tqdm(total=batches * options.steps, unit="step", disable=not sys.stderr.isatty()) as bar:
        return DDIM(steps=options.steps, eta=options.eta).sample(
            diffusion,
            options.n,
            seeds=options.seed,
            class_labels=labels,
            guidance_scale=options.guidance_scale,
            batch_size=options.batch_size,
            image_shape=config.image_shape,
            callback=lambda progress: bar.update() and None,
        )


if __name__ == "__main__":
    raise SystemExit(main())
