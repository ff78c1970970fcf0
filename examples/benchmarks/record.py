"""What every benchmark records beside its table: where and with what it ran."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples/, where studies is
from liquid_ode.measuring.machine import environment


def report(title: str, rows: Sequence[Mapping[str, Any]], path: Path | None) -> None:
    """Print the rows as a table, and write them with the environment as JSON."""
    record = {
        "benchmark": title,
        "environment": environment("cuda" if torch.cuda.is_available() else "cpu"),
        "rows": list(rows),
    }
    print(f"\n{title}")
    print(", ".join(f"{key} {value}" for key, value in record["environment"].items()))
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    print("  ".join(key.ljust(width) for key, width in widths.items()))
    for row in rows:
        print("  ".join(str(row[key]).ljust(width) for key, width in widths.items()))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written to {path}")
