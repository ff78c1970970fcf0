"""Which device a run uses, and in which precision that device is fastest."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("auto", "no", "bf16", "fp16")
DEVICES = ("cpu", "cuda", "mps")


def resolve_device(name: str | None) -> torch.device:
    """The named device, or the best there is for None.

    Raises:
        ValueError: this machine or this build of torch does not have it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name is None:
        name = next(device for device, there in available.items() if there)
    if not available.get(name, False):
        there = ", ".join(device for device, there in available.items() if there)
        raise ValueError(f"device {name!r} is not available here (there is: {there})")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """``name``, or for "auto" what the device gains from: "bf16" or "no".

    Raises:
        ValueError: "fp16" on a device that has no such training mode.
    """
    if name == "fp16" and device.type == "cpu":
        raise ValueError("precision 'fp16' needs a GPU; on the CPU choose 'bf16' or 'no'")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    # On a CPU, models this small lose more to the casts between precisions than the products in
    # bf16 gain, even with AMX: examples/benchmarks/train_speed.py measures it.
    return "no"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a model runs in ``precision`` ("no", "bf16" or "fp16")."""
    if precision == "no":
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16)
