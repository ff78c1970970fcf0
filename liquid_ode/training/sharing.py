"""A run to hand on: its weights and record, without its state and this machine's folders."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liquid_ode.training.errors import CheckpointError
from liquid_ode.training.run_directory import RunDirectory, save_bytes

_PLACES = ("source", "neighbours", "record")  # what an evaluation says of files


def share_run(run_dir: str | Path, to: str | Path, *, weights: Sequence[str] = ("ema",)) -> Path:
    """Write a copy of a run that can be sampled and measured, but not resumed.

    It holds the record, in which folders are left out or are names alone, the metrics, the
    evaluations, the last sample grid, and the weights asked for: everything but
    ``checkpoint.safetensors``, which is several times as large.

    Args:
        run_dir: the run.
        to: a directory that holds no run yet; made where it is missing.
        weights: which: "ema", "model", "best" or "ema-LENGTH".

    Returns:
        The new run directory.

    Raises:
        CheckpointError: there is no run, or it has no such weights.
        ValueError: another kind of weights, or ``to`` holds a run.
        OSError: a file could not be read or written.
    """
    run, other = RunDirectory(run_dir), RunDirectory(to)
    config, record = run.read_record()
    files = [run.weights(which) for which in weights]
    for file in files:
        if not file.exists():
            raise CheckpointError(f"{run.path} has no {file.name} to share: name other weights")
    other.refuse_existing()
    other.path.mkdir(parents=True, exist_ok=True)
    data, _, place = config.data.partition(":")
    facts = {k: v for k, v in record.items() if k not in ("format_version", "config")}
    shared = dataclasses.replace(
        config,
        output=None,
        data_root=None,
        data=f"{data}:{Path(place).name}" if place else data,
        init_from=None if config.init_from is None else Path(config.init_from).name,
    )
    last = run.last_sample()
    for file in (*files, run.metrics, *([] if last is None else [last])):
        target = other.path / file.relative_to(run.path)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    for file in sorted(run.path.glob("evaluation*.json")):
        found: dict[str, Any] = json.loads(file.read_text())
        found |= {key: Path(found[key]).name for key in _PLACES if found.get(key)}
        save_bytes(other.path / file.name, (json.dumps(found, indent=1) + "\n").encode())
    other.write_record(shared, facts)  # last: what has a record is whole
    return other.path
