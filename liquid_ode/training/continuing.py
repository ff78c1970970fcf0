"""Whether a run may go on with the settings and the data that it is given."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from liquid_ode.training.config import FREE, TrainConfig
from liquid_ode.training.errors import CheckpointError
from liquid_ode.training.run_directory import RunDirectory


def merge(saved: TrainConfig, given: TrainConfig, run: RunDirectory) -> TrainConfig:
    """The settings with which to go on: ``given``, where they are those of the run.

    Raises:
        ValueError: they would change the weights; each such setting is named.
    """
    if given.precision == "auto":  # the run has resolved it already
        given = dataclasses.replace(given, precision=saved.precision)
    changes = [
        f"{name} {old!r} -> {new!r}"
        for name, old in saved.to_dict().items()
        if name not in FREE and (new := getattr(given, name)) != old
    ]
    if changes:
        raise ValueError(
            f"the run in {run.path} has other settings: {', '.join(changes)}. A resumed run gives "
            "the weights that it would have given without a stop, so nothing may change that the "
            "weights depend on (also not epochs or max_steps: the learning rate falls to 0 over "
            "the whole run). Start a new run in another --output for that"
        )
    return given


def check_settings(found: Any, config: TrainConfig, what: str) -> None:
    """Raise CheckpointError where a checkpoint was made with settings that are not the run's."""
    settings = config.to_dict()
    found = found if isinstance(found, dict) else {}
    misfits = [
        f"{name} {found.get(name)!r} in place of {value!r}"
        for name, value in settings.items()
        if name not in FREE and found.get(name) != value
    ]
    if misfits:
        raise CheckpointError(f"{what} is not of this run: it was made with {', '.join(misfits)}")


def check_facts(saved: dict[str, Any], now: dict[str, Any], run: RunDirectory) -> None:
    """Raise ValueError where the data or the number of processes is not that of the run."""
    for name in ("data", "processes"):
        if saved.get(name) != now[name]:
            raise ValueError(
                f"the run in {run.path} was made with {name} {saved.get(name)}, and now there is "
                f"{now[name]}; it can only go on with the same (or start a new run: "
                f"--output, not --resume {shlex.quote(str(run.path))})"
            )
