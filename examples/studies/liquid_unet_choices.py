"""What each choice in the liquid U-Net brings: short runs that differ in one thing.

python examples/studies/liquid_unet_choices.py runs/choices --epochs 1
python examples/studies/liquid_unet_choices.py runs/choices --epochs 1 --only unet "4 steps"

Each run goes to a folder of its own, is resumed where it was stopped, and left alone where it is
finished. `python examples/evaluate.py runs/choices/* -n 2000` then measures them all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from liquid_ode.training import TrainConfig, train
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import keep_freed_memory

# Equal for all: those of the comparison with the U-Net.
SETTINGS: dict[str, Any] = {"batch_size": 64, "lr": 2e-3}

# What differs from the liquid U-Net of 2 semi-implicit steps.
CHOICES: dict[str, dict[str, Any]] = {
    "unet": {"model": "unet"},
    "2 steps": {},
    "1 step": {"model_options": {"steps": 1}},
    "4 steps": {"model_options": {"steps": 4}},
    "8 steps": {"model_options": {"steps": 8}},
    "2 steps at full size, 4 below": {"model_options": {"steps": [2, 4, 4]}},
    "1 step at full size, 4 below": {"model_options": {"steps": [1, 4, 4]}},
    "random steps, 2 to 4": {"model_options": {"steps": 4, "random_steps": [2, 3, 4]}},
    "half of the passes stop early": {"model_options": {"steps": 4, "early_share": 0.5}},
    "half of the passes start warm": {"model_options": {"warm_share": 0.5}},
    "half of the connections": {"model_options": {"sparsity": 0.5}},
    "attention at 8x8": {"model_options": {"attention": [2]}},
    "adaptive Euler": {"solver": "euler"},
    "4 steps of exponential Euler": {"solver": "exponential_euler", "model_options": {"steps": 4}},
    "twice the learning rate": {"lr": 4e-3},
    "images mirrored at random": {"flip": True},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", type=Path, metavar="DIR", help="where the runs go")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: torch's choice)")
    parser.add_argument(
        "--only", nargs="+", choices=CHOICES, default=list(CHOICES), metavar="CHOICE",
        help=f"of {', '.join(CHOICES)} (default: all)",
    )  # fmt: skip
    options = parser.parse_args()
    keep_freed_memory()
    return run_reporting_errors(lambda: run_all(options))


def run_all(options: argparse.Namespace) -> None:
    for name in options.only:
        print(f"\n{name}")
        output = options.output / name.replace(",", "").replace(" ", "-")
        if (output / "config.json").exists():
            train(resume=output)
            continue
        choice = {"model": "liquid_unet", "solver": "semi_implicit_euler", **CHOICES[name]}
        config = TrainConfig.from_preset(
            "recommended",
            **{**SETTINGS, **choice},
            epochs=options.epochs,
            seed=options.seed,
            threads=options.threads,
            output=str(output),
        )
        train(config)


if __name__ == "__main__":
    raise SystemExit(main())
