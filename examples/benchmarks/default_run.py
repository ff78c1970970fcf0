"""Wall time, speed and peak memory of the default training command, as a process of its own.

python examples/benchmarks/default_run.py                    # the whole of it
python examples/benchmarks/default_run.py -- --max-steps 500 # what follows -- goes to the command
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import report

from liquid_ode.evaluation import read_metrics

SCRIPT = Path(__file__).parents[1] / "train_cifar.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("arguments", nargs="*", help="more arguments of the training command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, str(SCRIPT), "--solver", "euler", "--output", str(run)]
        began = time.perf_counter()
        subprocess.run([*command, *options.arguments], check=True)
        wall = time.perf_counter() - began
        lines = read_metrics(run / "metrics.jsonl")
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    row = {
        "command": " ".join(["train_cifar.py --solver euler", *options.arguments]),
        "steps": lines[-1]["step"],
        "wall minutes": round(wall / 60, 1),
        "images/s": round(statistics.median(line["images_per_second"] for line in lines[1:])),
        "peak memory, MB": round(peak / 1e6),
    }
    report("default training command", [row], options.json)


if __name__ == "__main__":
    main()
