"""The lines of metrics that a run leaves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``, one JSON object each, in the order of the file.

    A line that is damaged is left out: one that a kill cut short, that is no JSON object, or that
    lacks a number as its ``step`` or ``loss``.

    Raises:
        OSError: the file could not be read.
    """
    records = []
    for line in Path(path).read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and all(_is_number(record.get(n)) for n in ("step", "loss")):
            records.append(record)
    return records


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
