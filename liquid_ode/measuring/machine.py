"""Where, when and with what a measurement ran."""

from __future__ import annotations

import datetime
import platform
import re
from pathlib import Path
from typing import Any

import torch


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Processor, threads, device, versions and date, which stand beside a table."""
    device = torch.device(device)
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU has, on return."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.processor()
