"""Numbers as people read them."""

from __future__ import annotations


def short(value: float) -> str:
    """A number for an axis or a label: 15k, 0.02, 1e-5."""
    if value == 0:
        return "0"
    size = abs(value)
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}" if size >= 1e-4 else f"{value:.0e}".replace("e-0", "e-")
