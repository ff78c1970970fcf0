"""The name of a run's directory where none is given."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from liquid_ode.training.presets import PRESETS

_LONGEST = 120  # file systems take 255


def run_name(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], parts: Mapping[str, str]
) -> str:
    """The nearest preset of the model, and what differs from it: ``unet-64px-lr0.001-seed0``.

    Args:
        settings: those that the weights depend on.
        defaults: of the same settings.
        parts: what the name has after the preset in any case (the solver), by its setting.
    """
    base, start = nearest_preset(settings, defaults)
    tags = [base, *parts.values()]
    for name, value in settings.items():
        if name not in parts and name != "seed" and value != start[name]:
            tags += _tags(name, value)
    name = re.sub(r"[^\w.-]+", "-", "-".join([*tags, f"seed{settings['seed']}"]))
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.blake2b(json.dumps(dict(settings)).encode(), digest_size=4).hexdigest()
    return f"{name[:_LONGEST]}-{digest}"


def nearest_preset(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], among: Iterable[str] = tuple(PRESETS)
) -> tuple[str, Mapping[str, Any]]:
    """The preset of this model from which the fewest settings differ, and its settings."""
    plain = {**defaults, "model": settings["model"]}
    sets = {
        name: {**plain, **preset}
        for name, preset in PRESETS.items()
        if name in among and preset.get("model", "improved") == settings["model"]
    }
    if not sets:
        return settings["model"], plain

    def differences(name: str) -> int:
        return sum(value != sets[name][key] for key, value in settings.items())

    best = min(sets, key=differences)
    return best, sets[best]


def _tags(name: str, value: Any) -> Iterator[str]:
    word = name.replace("_", "-")
    if name == "data":
        yield PurePath(str(value).partition(":")[2]).name or str(value)
    elif name == "image_size":
        yield f"{value}px"
    elif name == "init_from":
        yield f"from-{PurePath(value).name}"
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield f"{key}{_shown(entry)}"
    elif isinstance(value, bool):
        yield word if value else f"no-{word}"
    elif isinstance(value, str):
        yield value
    else:
        yield f"{word}{_shown(value)}"


def _shown(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)
