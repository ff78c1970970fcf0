"""Images per second of training, by model, and as a share of the U-Net's.

python examples/benchmarks/model_speed.py --json examples/benchmarks/results/model_speed.json

The steps are those of the real training loop, made in rounds that alternate between the models, in
one process.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from record import report
from train_speed import images_per_second

from liquid_ode.models import create_model
from liquid_ode.training import TrainConfig
from liquid_ode.training.machine import keep_freed_memory

MODELS = {
    "unet": ("euler", {}),
    "liquid_unet, 2 steps": ("semi_implicit_euler", {}),
    "liquid_unet, 1 + 4 + 4 steps": ("semi_implicit_euler", {"steps": [1, 4, 4]}),
    "liquid_unet, 2 + 4 + 4 steps": ("semi_implicit_euler", {"steps": [2, 4, 4]}),
    "liquid_unet, 4 steps": ("semi_implicit_euler", {"steps": 4}),
    "liquid_unet, 4 exponential steps": ("exponential_euler", {"steps": 4}),
    "liquid_unet, 4 adaptive steps": ("euler", {"steps": 4}),
    "improved": ("euler", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--images", type=int, default=1920, help="a round (default: 1920)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    keep_freed_memory()  # as the training command does
    torch.manual_seed(0)
    speeds: dict[str, list[float]] = {name: [] for name in MODELS}
    for _ in range(options.rounds):
        for name, (solver, model_options) in MODELS.items():
            config = TrainConfig(
                model=name.split(",")[0],
                solver=solver,
                model_options=model_options,
                batch_size=options.batch_size,
                epochs=1,
            )
            steps = max(10, options.images // options.batch_size)
            speeds[name].append(images_per_second(config, steps))
    reference = statistics.median(speeds["unet"])
    rows = []
    for name, values in speeds.items():
        model = create_model(name.split(",")[0])
        rows.append(
            {
                "model": name,
                "parameters": sum(p.numel() for p in model.parameters()),
                "images/s": round(statistics.median(values)),
                "of the U-Net's": round(statistics.median(values) / reference, 2),
            }
        )
    report("training speed by model", rows, options.json)


if __name__ == "__main__":
    main()
