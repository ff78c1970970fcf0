"""Runs that differ in their seed alone, together: mean and spread of held-out loss and FD-cnn.

python examples/studies/over_seeds.py
python examples/studies/over_seeds.py runs/unet-seed* --record ddim-steps50-seed0-n2000

Of the runs that come with the package, or of those named, which examples/evaluate.py has measured.
A spread is the smallest and the largest value.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from liquid_ode.trained import trained_run, trained_runs
from liquid_ode.training import TrainConfig, load_config
from liquid_ode.training.cli import run_reporting_errors

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples/, where studies is
from liquid_ode.measuring.tables import as_table

RECORD = "ddim-steps50-seed0-n10000"


@dataclass(frozen=True)
class Measured:
    """One run, and what it scored."""

    settings: dict[str, Any]
    record: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN",
        help="run directories (default: those that come with the package)",
    )  # fmt: skip
    parser.add_argument(
        "--record", default=RECORD, metavar="NAME",
        help=f"which evaluation of theirs, evaluation-NAME.json (default: {RECORD})",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args(arguments)
    return run_reporting_errors(lambda: study(options))


def study(options: argparse.Namespace) -> None:
    rows = compare(options.runs, options.record)
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def compare(runs: Sequence[Path], name: str) -> list[dict[str, Any]]:
    """A row for each group of runs whose settings differ in the seed alone.

    Raises:
        ValueError: none of the runs has such a record.
    """
    paths = runs or [trained_run(each) for each in trained_runs()]
    measured = [each for each in (read(path, name) for path in paths) if each is not None]
    if not measured:
        raise ValueError(
            f"none of the runs has evaluation-{name}.json: examples/evaluate.py makes it"
        )
    groups: dict[str, list[Measured]] = {}
    for each in measured:
        groups.setdefault(json.dumps(each.settings, sort_keys=True), []).append(each)
    common = {
        key for key, value in measured[0].settings.items()
        if all(each.settings[key] == value for each in measured)
    }  # fmt: skip
    return [_row(group, common) for group in groups.values()]


def _row(group: Sequence[Measured], common: set[str]) -> dict[str, Any]:
    first = group[0]
    return {
        "settings that differ": _told(first.settings, common),
        "parameters": first.record["parameters"],
        "distance": first.record["title"],
        "n": first.record["images"]["n"],
        "losses": [each.record["loss"]["mean"] for each in group],
        "distances": [each.record["images"]["fd"] for each in group],
        "environment": first.record["environment"],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text: means and spreads."""
    title = f"{rows[0]['distance']}, n = {rows[0]['n']:,}"
    heads = ["runs", "parameters", "held-out loss", "spread", title, "spread"]
    cells = [["settings that differ", *heads]]
    for row in rows:
        losses, distances = row["losses"], row["distances"]
        cells.append([
            row["settings that differ"], str(len(losses)), f"{row['parameters']:,}",
            f"{statistics.mean(losses):.4f}", f"{min(losses):.4f}-{max(losses):.4f}",
            f"{statistics.mean(distances):.2f}", f"{min(distances):.2f}-{max(distances):.2f}",
        ])  # fmt: skip
    return as_table(cells)


def read(path: Path, name: str) -> Measured | None:
    """A run with its record of that name; None where it has none."""
    file = path / f"evaluation-{name}.json"
    if not file.is_file():
        return None
    config = load_config(path)
    kept = [field.name for field in fields(TrainConfig) if not field.metadata.get("free")]
    settings = {key: getattr(config, key) for key in kept if key != "seed"}
    return Measured(settings, json.loads(file.read_text()))


def _told(settings: dict[str, Any], common: set[str]) -> str:
    differ = [f"{k}={v}" for k, v in settings.items() if k not in common and k != "model"]
    return ", ".join([settings["model"], *differ])


if __name__ == "__main__":
    raise SystemExit(main())
