"""The lines of metrics that a run leaves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl`` on its training, in the order of the file.

    Each is a JSON object with a number as its ``step`` and its ``loss``. A line that is damaged,
    as by a kill, is left out.

    Raises:
        OSError: the file could not be read.
    """
    return [record for record in read_lines(path) if "fd_cnn" not in record]


def read_measurements(path: str | Path) -> list[dict[str, Any]]:
    """Its lines on what was measured meanwhile, with a ``step`` and an ``fd_cnn``; otherwise as
    :func:`read_metrics`."""
    return [record for record in read_lines(path) if "fd_cnn" in record]


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Its lines of both kinds; otherwise as :func:`read_metrics`."""
    records = []
    for line in Path(path).read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and _is_number(record.get("step")):
            value = record.get("fd_cnn", record.get("loss"))
            if _is_number(value):
                records.append(record)
    return records


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
