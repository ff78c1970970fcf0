"""Seconds for 64 images by 50 DDIM steps, by solver of the cells.

python examples/benchmarks/sample_speed.py                 # an untrained model: same work
python examples/benchmarks/sample_speed.py RUN_DIR --solvers euler exponential_euler heun
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from record import report
from timing import interleaved

import solvers
from liquid_ode import DDIM, GaussianDiffusion, create_model
from liquid_ode.training import load_run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dir", nargs="?", type=Path, help="a trained run (default: none)")
    parser.add_argument("--model", default="improved", help="without a run (default: improved)")
    parser.add_argument("--solvers", nargs="+", default=["euler", "exponential_euler"])
    parser.add_argument("-n", type=int, default=64, help="images (default: 64)")
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps (default: 50)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()

    diffusions = {}
    for name in options.solvers:
        if options.run_dir is not None:
            diffusions[name] = load_run(options.run_dir, solver=name, device="cpu")
        else:
            model = create_model(options.model, solver=solvers.get(name))
            diffusions[name] = GaussianDiffusion(model).eval()
    sampler = DDIM(steps=options.steps)
    jobs = {
        name: partial(sampler.sample, diffusion, options.n)
        for name, diffusion in diffusions.items()
    }
    seconds = interleaved(jobs, rounds=options.rounds, warm_up=0)
    first = next(iter(seconds.values()))
    rows = [
        {
            "solver": name,
            "images": options.n,
            "DDIM steps": options.steps,
            "seconds": round(value, 2),
            "ratio": round(value / first, 2),
        }
        for name, value in seconds.items()
    ]
    report("sampling speed, float32", rows, options.json)


if __name__ == "__main__":
    main()
