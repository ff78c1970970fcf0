"""Fields of a dataclass that are settings: their help, their bounds, and the check of a value."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from liquid_ode.arguments import did_you_mean


def setting(default: Any, text: str, *, section: str, **bounds: Any) -> Any:
    """A field with its help text, its section of ``--help``, and its bounds or choices.

    ``convert`` among these brings what a user may write into the form that is kept.
    """
    metadata = {"help": text, "section": section, **bounds}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def of_type(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the field's type: whole numbers serve as floats, tuples as JSON's lists."""
    accepted = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [typing.get_origin(kind) or kind for kind in accepted]
    if value is None and types.NoneType in kinds:
        return None
    if list in kinds and isinstance(value, tuple):
        value = list(value)
    kind = next((kind for kind in kinds if isinstance(value, kind)), kinds[0])
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        unset = " or None" if types.NoneType in kinds else ""
        raise ValueError(f"{name} must be of type {kind.__name__}{unset}, got {value!r}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    if kind is dict:
        return _as_json(name, value)
    if kind is list:
        (entry,) = typing.get_args(hint)
        return [of_type(f"each of {name}", item, entry) for item in value]
    return value


def _as_json(name: str, value: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(value, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold only what JSON can: {error}") from error


def check_bounds(name: str, value: Any, bounds: Mapping[str, Any]) -> None:
    if isinstance(value, list):
        for entry in value:
            check_bounds(f"each of {name}", entry, bounds)
        return
    choices = bounds.get("choices")
    if callable(choices):
        choices = choices()
    if choices is not None and value not in choices:
        guess = did_you_mean(str(value), map(str, choices))
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}{guess}"
        )
    if "low" in bounds and value < bounds["low"]:
        raise ValueError(f"{name} must be at least {bounds['low']}, got {value!r}")
    if "above" in bounds and value <= bounds["above"]:
        raise ValueError(f"{name} must be greater than {bounds['above']}, got {value!r}")
    if "below" in bounds and value >= bounds["below"]:
        raise ValueError(f"{name} must be less than {bounds['below']}, got {value!r}")
