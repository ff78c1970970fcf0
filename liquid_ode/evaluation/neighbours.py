"""Whether a model copies its training images: the nearest of them to each sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from liquid_ode.evaluation.features import check_pixels
from liquid_ode.evaluation.figures import new_figure, save_figure
from liquid_ode.evaluation.pictures import as_pixels


@dataclass(frozen=True)
class Neighbours:
    """The nearest of M candidates to each of N queries, nearest first.

    Attributes:
        indices: ``(N, k)``, long, into the candidates.
        distances: Euclidean, ``(N, k)``.
    """

    indices: Tensor
    distances: Tensor


def nearest(queries: Tensor, candidates: Tensor, k: int = 1, *, chunk: int = 1000) -> Neighbours:
    """The k nearest candidates to each query, exactly, by Euclidean distance.

    Args:
        queries: ``(N, …)``, floating point or uint8.
        candidates: ``(M, …)``, of the same type, M ≥ k.
        k: how many.
        chunk: queries at a time, and candidates: memory for the square of this.

    Raises:
        ValueError: the shapes or types do not agree, or there are fewer than k candidates.
    """
    if queries.shape[1:] != candidates.shape[1:] or not 1 <= k <= len(candidates):
        raise ValueError(
            f"expected candidates of the shape of the queries and at least k = {k} of them, got "
            f"{tuple(candidates.shape)} for queries {tuple(queries.shape)}"
        )
    if queries.dtype != candidates.dtype:
        raise ValueError(f"queries are {queries.dtype} and candidates {candidates.dtype}")
    indices, squares = [], []
    for part in queries.flatten(1).split(chunk):
        # In float64, where |a|² + |b|² − 2 a·b keeps its digits (and is exact for bytes).
        rows = part.double()  # (Q, D)
        best, places = rows.new_empty(len(rows), 0), rows.new_empty(len(rows), 0).long()
        for start in range(0, len(candidates), chunk):
            others = candidates[start : start + chunk].flatten(1).double()  # (C, D)
            found = rows.square().sum(1, keepdim=True) + others.square().sum(1)
            found = found.addmm_(rows, others.T, alpha=-2)  # (Q, C)
            best = torch.cat([best, found], 1)
            new = torch.arange(start, start + len(others), device=places.device)
            places = torch.cat([places, new.expand(len(rows), -1)], 1)
            best, kept = best.topk(min(k, best.shape[1]), largest=False)  # (Q, k)
            places = places.gather(1, kept)
        indices.append(places)
        squares.append(best)
    return Neighbours(torch.cat(indices), torch.cat(squares).clamp_min(0).sqrt())


def plot_neighbours(
    samples: Tensor, training: Tensor, by_features: Neighbours, path: str | Path, *, rows: int = 8
) -> Path:
    """Draw the samples that come nearest to a training image, beside their nearest ones.

    The rows are the samples whose nearest training image by features is nearest of all: where a
    model copies, it shows here. Beside each are the k nearest by pixels and by features.

    Args:
        samples: ``(N, 3, H, W)``, uint8.
        training: ``(M, 3, H, W)``, uint8.
        by_features: the nearest training images of every sample, k of each.
        path: the PNG; its directory is made where it is missing.
        rows: how many samples; all, where there are fewer.

    Raises:
        ValueError: ``rows`` is below 1, or images are of another shape or type.
        OSError: the file could not be written; a file that was there is kept.
    """
    check_pixels("samples", samples)
    check_pixels("training", training)
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    chosen = by_features.distances[:, 0].argsort()[:rows]  # (rows,)
    k = by_features.indices.shape[1]
    by_pixels = nearest(samples[chosen], training, k)
    columns = {
        "sample": samples[chosen].unsqueeze(1),
        "nearest training images by pixels": training[by_pixels.indices],
        "by features": training[by_features.indices[chosen]],
    }  # (rows, columns, 3, H, W) each
    widths = [tiles.shape[1] for tiles in columns.values()]
    figure = new_figure(0.75 * sum(widths) + 0.5, 0.75 * len(chosen) + 0.4)
    panels = figure.subplots(1, len(columns), width_ratios=widths)
    for panel, (title, tiles) in zip(panels, columns.items(), strict=True):
        count, across, _, height, width = tiles.shape
        pixels = as_pixels(tiles.flatten(0, 1)).view(count, across, height, width, 3)
        panel.imshow(pixels.transpose(1, 2).reshape(count * height, across * width, 3).numpy())
        panel.set_title(title, fontsize=9)
        panel.set_axis_off()
    return save_figure(figure, path)
