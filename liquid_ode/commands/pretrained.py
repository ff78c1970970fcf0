"""List the trained runs that come with the package: what they measure, and what made them.

liquid-ode pretrained
liquid-ode sample pretrained:improved
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from liquid_ode.arguments import Parser
from liquid_ode.measuring.tables import as_table
from liquid_ode.trained import PREFIX, SHORT, checksum, trained_run, trained_runs
from liquid_ode.training.cli import arguments_of
from liquid_ode.training.run_directory import RunDirectory


class Shipped(NamedTuple):
    """What there is to say of a run."""

    name: str
    short: str
    """the short name, or nothing"""
    model: str
    parameters: int
    distance: float
    """FD-cnn of ``images`` samples by 50 DDIM steps"""
    images: int
    sha256: str
    command: str
    """what made it"""


def shipped(name: str) -> Shipped:
    """What there is to say of the run of that name.

    Raises:
        ValueError: there is no run of that name.
    """
    path = trained_run(name)
    config, record = RunDirectory(path).read_record()
    (measured,) = (json.loads(file.read_text()) for file in path.glob("evaluation-ddim-*.json"))
    found: dict[str, Any] = measured["images"]
    shorts = [short for short, run in SHORT.items() if run == path.name]
    return Shipped(
        path.name,
        ", ".join(shorts),
        config.model,
        record["parameters"],
        found["fd"],
        found["n"],
        checksum(path.name),
        shlex.join(["liquid-ode", "train", *arguments_of(config)]),
    )


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """List the runs; returns the exit status."""
    parser = Parser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    parser.parse(arguments)
    runs = [shipped(name) for name in trained_runs()]
    rows = [["name", "short", "model", "parameters", "FD-cnn", "of images", "SHA-256"]]
    for run in runs:
        count, images = f"{run.parameters:,}", f"{run.images:,}"
        short, distance = run.short or "--", f"{run.distance:.2f}"
        rows.append([run.name, short, run.model, count, distance, images, run.sha256[:16]])
    print(as_table(rows))
    print("\nmade by")
    print(*(f"  {run.name:<18} {run.command}" for run in runs), sep="\n")
    print(f"\nused as {PREFIX}NAME wherever a run is asked for, such as")
    print(f"  liquid-ode sample {PREFIX}improved")
    print(f"their files are in {Path(trained_run(trained_runs()[0])).parent}")
    return 0
