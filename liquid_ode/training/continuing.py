"""Whether a run may go on with the settings and the data that it is given, and what changes."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from liquid_ode.training.config import CHANGEABLE, FREE, TrainConfig
from liquid_ode.training.errors import CheckpointError
from liquid_ode.training.run_directory import RunDirectory

Changes = dict[str, list[Any]]  # of each setting that changes: the old value and the new one


def merge(saved: TrainConfig, given: TrainConfig, run: RunDirectory) -> TrainConfig:
    """The settings with which to go on: ``given``, where the run can take them.

    Raises:
        ValueError: it cannot; each such setting is named.
    """
    if given.precision == "auto":  # the run has resolved it already
        given = dataclasses.replace(given, precision=saved.precision)
    refused = {
        name: change for name, change in changes(saved, given).items() if name not in CHANGEABLE
    }
    if refused:
        raise ValueError(
            f"the run in {run.path} has other settings: {told(refused)}. A run can go on with "
            f"another {', '.join(sorted(CHANGEABLE))}, and its record tells of it; for anything "
            "else start a new run in another --output, with --init-from to begin with its weights"
        )
    return given


def changes(saved: TrainConfig, given: TrainConfig) -> Changes:
    """The settings that the weights depend on and that are not what they were."""
    return {
        name: [old, new]
        for name, old in saved.to_dict().items()
        if name not in FREE and (new := getattr(given, name)) != old
    }


def told(changed: Changes) -> str:
    return ", ".join(f"{name} {old!r} -> {new!r}" for name, (old, new) in changed.items())


def check_settings(
    found: Any, config: TrainConfig, history: Sequence[Mapping[str, Any]], what: str
) -> None:
    """Raise CheckpointError where a checkpoint was made with settings that the run never had.

    Args:
        found: the checkpoint's settings.
        config: the run's, now.
        history: the changes of ``config.json``, oldest first: each has the setting's old value
            and its new one. A run may have been killed between a change and its next checkpoint.
        what: the checkpoint's name.
    """
    try:
        made = TrainConfig.from_dict(found).to_dict()  # earlier versions had fewer settings
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{what} has no settings of a run: {error}") from error
    settings = config.to_dict()
    first = misfits = _misfits(made, settings)
    for change in reversed(history):
        if not misfits:
            return
        settings |= {name: pair[0] for name, pair in change["changed"].items()}
        misfits = _misfits(made, settings)
    if misfits:
        raise CheckpointError(f"{what} is not of this run: it was made with {', '.join(first)}")


def _misfits(made: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {made[name]!r} in place of {value!r}"
        for name, value in settings.items()
        if name not in FREE and made[name] != value
    ]


def check_data(saved: Mapping[str, Any], now: Mapping[str, Any], run: RunDirectory) -> None:
    """Raise ValueError where the images, or the labels that are used, are not those of the run.

    What they are called and where they lie is no matter.
    """
    names = [name for name in ("images", "crc32", "labels_crc32") if saved.get(name) is not None]
    if any(saved[name] != now[name] for name in names):
        raise ValueError(
            f"the run in {run.path} was made with {_described(saved)}, and now there are "
            f"{_described(now)}: it can only go on with the same. Name their place with --data, or "
            f"start a new run (--init-from {shlex.quote(str(run.path))} for its weights)"
        )


def _described(data: Mapping[str, Any]) -> str:
    sums = [f"checksum {data['crc32']}"]
    if data.get("labels_crc32") is not None:
        sums.append(f"of the labels {data['labels_crc32']}")
    return f"{data['images']} images ({data['name']}, {', '.join(sums)})"
