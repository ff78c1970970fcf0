"""Records of ``liquid-ode evaluate`` as tables of plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Records = Sequence[Mapping[str, Any]]


def tables(records: Records) -> str:
    """The records as text: the images, with a row of real ones; then the held-out loss."""
    drawn = [record for record in records if "images" in record]
    scored = [record for record in records if "loss" in record]
    blocks = [*([image_table(drawn)] if drawn else []), *([loss_table(scored)] if scored else [])]
    return "\n\n".join(blocks)


def image_table(records: Records) -> str:
    """Distance, contrast and cost of images, beside real images and the reference."""
    head = ["KID x 1000", "+-", "std", "saturated", "nearest", "evaluations"]
    rows = [["images", "n", records[0]["title"], *head]]
    for record in records:
        nearest = f"{record['neighbour_ratio']:.2f}" if "neighbour_ratio" in record else "--"
        cost = f"{record['evaluations']:g}" if "evaluations" in record else "--"
        distance, contrast = _distance(record["images"]), _contrast(record["pixels"])
        rows.append([record["source"], *distance, *contrast, nearest, cost])
    reals = [record["real"] for record in records if record["real"] is not None]
    for real in {real["n"]: real for real in reals}.values():
        rows.append(["real training images", *_distance(real), "--", "--", "--", "--"])
    contrast = _contrast(records[0]["reference_pixels"])
    n = f"{records[0]['reference_n']:,}"
    rows.append(["real held-out images", n, "0", "0", "--", *contrast, "1.00", "--"])
    return as_table(rows)


def loss_table(records: Records) -> str:
    """Mean squared error of the predicted noise by noise level, lowest first."""
    levels = len(records[0]["loss"]["levels"])
    heads = [f"noise {level}/{levels}" for level in range(1, levels + 1)]
    rows = [["held-out loss", "parameters", *heads, "all", "+-"]]
    for record in records:
        loss = record["loss"]
        values = [*loss["levels"], loss["mean"], loss["standard_error"]]
        cells = [f"{value:.4f}" for value in values]
        rows.append([record["source"], f"{record['parameters']:,}", *cells])
    return as_table(rows)


def _distance(found: Mapping[str, Any]) -> list[str]:
    kid = [f"{1000 * found[name]:.2f}" for name in ("kid", "kid_std")]
    return [f"{found['n']:,}", f"{found['fd']:.3f}", *kid]


def _contrast(pixels: Mapping[str, Any]) -> list[str]:
    return [f"{pixels['std']:.3f}", f"{pixels['saturated']:.1%}"]


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the first of them the heads, in columns: the first flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)
