"""Denoising loss of finished runs on held-out images of their own kind, by noise level.

python examples/benchmarks/denoising_loss.py runs/improved-euler-seed0 runs/unet-seed0

Every run meets the same images, time steps and noise. Columns are the mean squared error of the
predicted noise over fifths of the time steps, lowest noise first; the last is over all of them.
The error of the mean is one standard error over the images. (``examples/evaluate.py -n 0`` prints
the same on all held-out images.)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from record import report

from liquid_ode.evaluation import denoising_loss
from liquid_ode.training import load_run

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples/, where studies is
from liquid_ode.measuring.run_data import of_run, some


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("-n", type=int, default=5000, help="held-out images (default: 5000)")
    parser.add_argument("--held-out", type=Path, help="their folder, for runs on a folder")
    parser.add_argument("--data-root", help="where CIFAR-10 is cached")
    parser.add_argument("--seed", type=int, default=0, help="of steps and noise (default: 0)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()

    rows = []
    for path in options.run_dirs:
        own = of_run(path, options.held_out, options.data_root)
        diffusion = load_run(path)
        loss = denoising_loss(diffusion, some(own.held_out, options.n), seed=options.seed)
        heads = [f"noise {index}/{len(loss.levels)}" for index in range(1, len(loss.levels) + 1)]
        rows.append(
            {
                "run": path.name,
                "images": f"{loss.images} of {own.held_out.name}",
                "parameters": sum(p.numel() for p in diffusion.parameters()),
                **{head: f"{v:.4f}" for head, v in zip(heads, loss.levels, strict=True)},
                "all": f"{loss.mean:.4f}",
                "+-": f"{loss.standard_error:.4f}",
            }
        )
    report("denoising loss, held-out images", rows, options.json)


if __name__ == "__main__":
    main()
