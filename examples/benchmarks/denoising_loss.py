"""Denoising loss of finished runs on the CIFAR-10 test images, by noise level.

python examples/benchmarks/denoising_loss.py runs/improved-euler-seed0 runs/unet-seed0

Every run meets the same images, time steps and noise. Columns are the mean squared error of the
predicted noise over fifths of the time steps, lowest noise first; the last is over all of them.
The error of the mean is one standard error over the images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from record import report
from torch import Tensor

from liquid_ode import GaussianDiffusion
from liquid_ode.data import load_images, to_model_range
from liquid_ode.training import load_config, load_run

LEVELS = 5


@torch.no_grad()
def losses(diffusion: GaussianDiffusion, images: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the noise, one an image ``(N,)``; whatever the model predicts."""
    device, errors = diffusion.device, []
    for start in range(0, len(images), 250):
        part = slice(start, start + 250)
        clean, eps, step = images[part].to(device), noise[part].to(device), t[part].to(device)
        noisy = diffusion.add_noise(clean, eps, step)
        guess = diffusion.denoise(noisy, step).epsilon
        errors.append((guess - eps).square().flatten(1).mean(1).cpu())
    return torch.cat(errors)


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
    generator = torch.Generator().manual_seed(options.seed)
    share = torch.rand(len(images), generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    rows = []
    for path in options.run_dirs:
        config, diffusion = load_config(path), load_run(path)
        diffusion.clip_sample = False  # the prediction as it is, not as a sampler mends it
        t = (share * config.diffusion_steps).long()
        error = losses(diffusion, images, t, noise)
        level = (share * LEVELS).long()
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
