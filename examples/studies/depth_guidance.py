"""Guidance by integration depth: the same weights, stopped early, as the weaker model.

python examples/studies/depth_guidance.py runs/liquid_unet --early 1 2 3 --scales 1 1.5 2 3

D_early + w (D - D_early), where D_early is the model whose cells stop after so many of their
solver's steps. For each number of steps and each w: FD-cnn of n samples, their contrast beside the
data's, and the images a second (a weaker model that stops after k of K steps costs about k/K of an
evaluation).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from liquid_ode.data import load_cifar10
from liquid_ode.diffusion import DDIM, GaussianDiffusion, Guidance
from liquid_ode.evaluation import Yardstick
from liquid_ode.models import Denoiser
from liquid_ode.training import load_run
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import keep_freed_memory

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples/, where studies is
from liquid_ode.measuring.machine import environment


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument(
        "--early", nargs="+", default=["1", "2", "3"], metavar="K",
        help="steps after which the weaker model stops; 2,3,4 for those of three scales "
        "(default: 1 2 3)",
    )  # fmt: skip
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0])
    parser.add_argument("--steps", type=int, default=25, metavar="N", help="of DDIM (default: 25)")
    parser.add_argument("-n", type=int, default=1000, metavar="N", help="images (default: 1000)")
    parser.add_argument("--data-root", metavar="DIR", help="where CIFAR-10 is cached")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    keep_freed_memory()
    return run_reporting_errors(lambda: study(options))


def study(options: argparse.Namespace) -> None:
    yardstick = Yardstick(
        load_cifar10(options.data_root, split="test"), load_cifar10(options.data_root)
    )
    diffusion = load_run(options.run)
    rows = [measure(yardstick, diffusion, None, 1.0, options)]
    for early in options.early:
        steps = [int(part) for part in early.split(",")]
        weak = weaker(diffusion, steps[0] if len(steps) == 1 else steps)
        for scale in options.scales:
            if scale != 1:
                rows.append(measure(yardstick, diffusion, (early, weak), scale, options))
    if options.json is not None:
        record = {"run": options.run.name, "environment": environment("cpu"), "rows": rows}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def weaker(diffusion: GaussianDiffusion, steps: int | list[int]) -> GaussianDiffusion:
    """The diffusion whose model stops early, sharing all parameters.

    Raises:
        ValueError: the model has no cells, or not so many steps.
    """
    model = diffusion.model
    if not isinstance(model, Denoiser):
        raise ValueError(f"only the library's own models stop early, not {type(model).__name__}")
    return GaussianDiffusion(
        model.stopped_early(steps),
        diffusion.schedule,
        diffusion.prediction,
        clip_sample=diffusion.clip_sample,
    ).eval()


def measure(
    yardstick: Yardstick,
    diffusion: GaussianDiffusion,
    weak: tuple[str, GaussianDiffusion] | None,
    scale: float,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """One row, also printed."""
    guidance = Guidance(scale, weak=None if weak is None else weak[1])
    began = time.perf_counter()
    images = DDIM(options.steps).sample(diffusion, options.n, guidance=guidance, batch_size=100)
    seconds = time.perf_counter() - began
    scores = yardstick.measure(images)
    row = {
        "early": None if weak is None else weak[0],
        "scale": scale,
        "n": options.n,
        "FD-cnn": scores.images.fd,
        "KID": scores.images.kid,
        **dataclasses.asdict(scores.pixels),
        "images/s": options.n / seconds,
    }
    print(
        f"early {row['early'] or '-':>6}  w {scale:<4g} {scores}, KID {scores.images.kid:.4f}, "
        f"{row['images/s']:.1f} images/s",
        flush=True,
    )
    return row


if __name__ == "__main__":
    raise SystemExit(main())
