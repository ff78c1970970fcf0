"""Images per second of training, by precision, memory format, compilation and batch size.

python examples/benchmarks/train_speed.py --model improved
python examples/benchmarks/train_speed.py --model unet --images 12800
python examples/benchmarks/train_speed.py --from-run runs/improved-euler-seed0

The steps are those of the real training loop (data, EMA, clipping, optimizer, logging), made in
rounds that alternate between the settings, in one process. The first row is the reference of the
ratios. With --from-run the figures are those of a finished run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from record import report

from liquid_ode.evaluation import read_metrics
from liquid_ode.training import Reporter, TrainConfig, train
from liquid_ode.training.machine import keep_freed_memory

# precision, channels last, compiled
SETTINGS = [
    ("no", False, False), ("no", True, False), ("no", True, True), ("bf16", True, False),
    ("bf16", True, True),
]  # fmt: skip


def images_per_second(config: TrainConfig, steps: int) -> float:
    """The median over the logged intervals but the first, which warms up and compiles."""
    with tempfile.TemporaryDirectory() as folder:
        every = max(1, steps // 5)
        settings = {
            **config.to_dict(),
            "max_steps": steps,
            "log_every": every,
            "samples": 0,
            "checkpoint_every": steps,
            "output": str(Path(folder) / "run"),
        }
        run = train(TrainConfig.from_dict(settings), reporter=Reporter())
        lines = read_metrics(run / "metrics.jsonl")
    return statistics.median(line["images_per_second"] for line in lines[1:])


def compare(options: argparse.Namespace) -> list[dict[str, object]]:
    rows = []
    for batch_size in options.batch_sizes:
        speeds: dict[tuple[str, bool, bool], list[float]] = {setting: [] for setting in SETTINGS}
        for _ in range(options.rounds):
            for precision, channels_last, compiled in SETTINGS:
                config = TrainConfig.from_preset(
                    options.model,
                    solver=options.solver,
                    precision=precision,
                    channels_last=channels_last,
                    compile=compiled,
                    batch_size=batch_size,
                    epochs=1,
                )
                speed = images_per_second(config, max(10, options.images // batch_size))
                speeds[precision, channels_last, compiled].append(speed)
        reference = statistics.median(speeds[SETTINGS[0]])
        for (precision, channels_last, compiled), values in speeds.items():
            speed = statistics.median(values)
            rows.append(
                {
                    "model": options.model,
                    "solver": options.solver,
                    "batch": batch_size,
                    "precision": "float32" if precision == "no" else precision,
                    "memory": "channels_last" if channels_last else "contiguous",
                    "compiled": "yes" if compiled else "no",
                    "images/s": round(speed),
                    "ratio": round(speed / reference, 2),
                    "5 epochs, minutes": round(250_000 / speed / 60, 1),
                }
            )
    return rows


def finished_run(path: Path) -> list[dict[str, object]]:
    config = json.loads((path / "config.json").read_text())
    lines = read_metrics(path / "metrics.jsonl")
    speed = statistics.median(line["images_per_second"] for line in lines[1:])
    return [
        {
            "run": path.name,
            "steps": lines[-1]["step"],
            "epochs": lines[-1]["epoch"],
            "images/s": round(speed),
            "minutes of training": round(lines[-1]["seconds"] / 60, 1),
            "last loss": round(lines[-1]["loss"], 4),
            "torch of the run": config["versions"]["torch"],
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="improved", help="(default: improved)")
    parser.add_argument("--solver", default="euler", help="(default: euler)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--images", type=int, default=3200, help="a round (default: 3200)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--from-run", type=Path, help="report a finished run instead")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    keep_freed_memory()  # as the training command does
    torch.manual_seed(0)
    rows = finished_run(options.from_run) if options.from_run else compare(options)
    report("training speed", rows, options.json)


if __name__ == "__main__":
    main()
