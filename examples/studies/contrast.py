"""Do the samples have the data's contrast? Sampler settings side by side on one run.

python examples/studies/contrast.py runs/improved-euler-seed0 -n 2000
python examples/studies/contrast.py RUN --settings "--eta 1" "--steps 25 --sigma-max 15"

A setting is what examples/sample.py takes. For each: evaluations of the denoiser, the standard
deviation of all pixel values in [-1, 1] and the share of them at 0 or 255, each beside the data's,
FD-cnn and KID. "ok" is a standard deviation within 10% of the data's and at most twice its
saturated share.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liquid_ode.evaluation import ClassifierFeatures, Scores, Yardstick
from liquid_ode.evaluation.pixels import PixelStatistics
from liquid_ode.sampling.cli import prepare
from liquid_ode.sampling.parser import make_parser
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import (
    autocast,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples/, where studies is
from liquid_ode.measuring.evaluation import Plan, draw
from liquid_ode.measuring.machine import environment
from liquid_ode.measuring.run_data import of_run
from liquid_ode.measuring.tables import as_table

SETTINGS = [
    "--steps 50",
    *(f"--steps 50 --sigma-max {sigma}" for sigma in (80, 30, 15, 8)),
    *(f"--steps 50 --eta {eta}" for eta in (0.3, 0.5, 0.7, 1)),
    *(f"--steps 50 --sigma-max {sigma} --eta 0.5" for sigma in (80, 15)),
    "--steps 50 --sigma-max 80 --eta 1",
    "--sampler dpm-solver++ --steps 10",
    "--sampler dpm-solver++ --steps 20",
    "--sampler dpm-solver++ --steps 20 --sigma-max 15",
    "--sampler heun --steps 10",
]


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("run", type=Path, metavar="RUN")
    add(
        "--settings", nargs="+", default=SETTINGS, metavar="OPTIONS",
        help="each the options of examples/sample.py, in quotes (default: a list of samplers)",
    )  # fmt: skip
    add("-n", type=int, default=1000, metavar="N", help="images of each (default: 1000)")
    add("--seed", type=int, default=0, metavar="N", help="of the first image (default: 0)")
    add("--weights", choices=["ema", "model"], default="ema", help="(default: ema)")
    add("--batch-size", type=int, default=100, metavar="N", help="(default: 100)")
    add("--held-out", type=Path, metavar="FOLDER", help="for a run on a folder: other such images")
    add("--data-root", metavar="DIR", help="where CIFAR-10 is cached (default: the run's own)")
    add("--device", choices=["cpu", "cuda", "mps"], help="(default: the best)")
    add("--json", type=Path, metavar="FILE", help="also write the figures here")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    return run_reporting_errors(lambda: study(options))


def study(options: argparse.Namespace) -> None:
    keep_freed_memory()
    device = resolve_device(options.device)
    features = ClassifierFeatures()
    if options.n <= features.num_features:
        raise ValueError(
            f"-n must be more than {features.num_features}, the features of {features.title}, "
            f"not {options.n}"
        )
    drawings = [_drawing(words, options) for words in options.settings]
    jobs = [prepare(options.run, each, device) for each in drawings]  # before what takes long
    own = of_run(options.run, options.held_out, options.data_root)
    yardstick = Yardstick(own.held_out, own.training, features=features, device=device)
    data = PixelStatistics.of(own.training.images)
    rows = []
    for words, drawing, job in zip(options.settings, drawings, jobs, strict=True):
        plan = Plan(drawing, options.n, options.seed, batch_size=options.batch_size)
        with autocast(device, drawing.precision):
            images, evaluations = draw(job, plan)
        rows.append(_row(words, yardstick.measure(images), evaluations, data))
        print(table(rows[-1:], data, yardstick), flush=True)
    print(f"\n{table(rows, data, yardstick)}")
    if options.json is not None:
        record = {
            "run": options.run.name,
            "weights": options.weights,
            "data": dataclasses.asdict(data),
            "environment": environment(device),
            "rows": rows,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def _drawing(words: str, options: argparse.Namespace) -> argparse.Namespace:
    """The options of a setting.

    Raises:
        ValueError: one of them is unknown.
    """
    drawing, unknown = make_parser().parse_known_args([str(options.run), *shlex.split(words)])
    if unknown:
        raise ValueError(f"the setting {words!r} has unknown options: {' '.join(unknown)}")
    drawing.weights, drawing.seed, drawing.n = options.weights, options.seed, options.n
    drawing.precision = resolve_precision(drawing.precision, resolve_device(options.device))
    return drawing


def _row(words: str, scores: Scores, evaluations: float, data: PixelStatistics) -> dict[str, Any]:
    """The figures of one setting."""
    pixels = scores.pixels
    return {
        "setting": words,
        "n": scores.images.n,
        "evaluations": evaluations,
        "std": pixels.std,
        "saturated": pixels.saturated,
        "ok": abs(pixels.std / data.std - 1) <= 0.1 and pixels.saturated <= 2 * data.saturated,
        "fd": scores.images.fd,
        "kid": scores.images.kid,
    }


def table(rows: Sequence[dict[str, Any]], data: PixelStatistics, yardstick: Yardstick) -> str:
    """The settings, and the data's own contrast and distance at the same n."""
    heads = ["evaluations", "std", "saturated", yardstick.title, "KID x 1000", "contrast"]
    cells = [["setting", *heads]]
    for row in rows:
        cells.append([
            row["setting"], f"{row['evaluations']:g}", f"{row['std']:.3f}",
            f"{row['saturated']:.1%}", f"{row['fd']:.2f}", f"{1000 * row['kid']:.2f}",
            "ok" if row["ok"] else "off",
        ])  # fmt: skip
    real = yardstick.real(rows[0]["n"])
    if real is not None:
        distance = [f"{real.fd:.2f}", f"{1000 * real.kid:.2f}"]
        own = [f"{data.std:.3f}", f"{data.saturated:.1%}"]
        cells.append([f"training images, n = {real.n:,}", "--", *own, *distance, "--"])
    return as_table(cells)


if __name__ == "__main__":
    raise SystemExit(main())
