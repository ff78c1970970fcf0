"""Denoising loss of finished runs on the CIFAR-10 test images, by noise level.

python examples/benchmarks/denoising_loss.py runs/improved-euler-seed0 runs/unet-seed0

Every run meets the same images, time steps and noise. Columns are the mean squared error of the
predicted noise over fifths of the time steps, lowest noise first; the last is over all of them.
The error of the mean is one standard error over the images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from record import report

from liquid_ode.data import load_images, to_model_range
from liquid_ode.training import load_config, load_run

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples/, where studies is
from studies.noisy_images import NoisyImages

LEVELS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("-n", type=int, default=5000, help="test images (default: 5000)")
    parser.add_argument("--data-root", help="where CIFAR-10 is cached")
    parser.add_argument("--seed", type=int, default=0, help="of steps and noise (default: 0)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()

    data = load_images("cifar10", options.data_root, split="test")
    images = to_model_range(data.images[: options.n])
    rows = []
    for path in options.run_dirs:
        config, diffusion = load_config(path), load_run(path)
        noisy = NoisyImages.draw(images, config.diffusion_steps, options.seed)
        error = noisy.errors(diffusion)
        level = noisy.t * LEVELS // config.diffusion_steps
        rows.append(
            {
                "run": path.name,
                "parameters": sum(p.numel() for p in diffusion.parameters()),
                **{
                    f"noise {index + 1}/{LEVELS}": f"{error[level == index].mean():.4f}"
                    for index in range(LEVELS)
                },
                "all": f"{error.mean():.4f}",
                "+-": f"{error.std() / len(error) ** 0.5:.4f}",
            }
        )
    report(f"denoising loss, {len(images)} test images", rows, options.json)


if __name__ == "__main__":
    main()
