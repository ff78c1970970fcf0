"""Pictures of image classifiers: accuracy as they train, and time constants of liquid blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from liquid_ode.evaluation.figures import new_figure, save_figure, tidy
from liquid_ode.evaluation.pictures import as_pixels

Curve = Sequence[tuple[float, float]]
"""Of each epoch, the seconds it took and the accuracy after it, from 0 to 1."""


def plot_accuracy(curves: Mapping[str, Curve], path: str | Path) -> Path:
    """Draw test accuracy over epochs, and over the time they took, as a PNG.

    Args:
        curves: of each run, by its label.
        path: the PNG.

    Raises:
        ValueError: there is no curve.
        OSError: the file could not be written.
    """
    if not curves:
        raise ValueError("there is no curve to draw")
    figure = new_figure(9.5, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    for label, curve in curves.items():
        percent = [100 * accuracy for _, accuracy in curve]
        minutes = [sum(took for took, _ in curve[: at + 1]) / 60 for at in range(len(curve))]
        for panel, passed in zip(panels, (range(1, len(curve) + 1), minutes), strict=True):
            panel.plot(passed, percent, marker="o", markersize=4, label=label)
    panels[0].set(xlabel="epoch", ylabel="test accuracy, %")
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    panels[1].set(xlabel="training time, minutes")
    for panel in panels:
        panel.set_xlim(left=0)
        tidy(panel, grid="#e4e4e4")
    panels[1].legend(frameon=False, fontsize=8, loc="lower right")
    return save_figure(figure, path)


def plot_time_constants(
    images: Tensor, names: Sequence[str], found: Sequence[Tensor], path: str | Path
) -> Path:
    """Draw what the time constants of liquid blocks are like on images, as a PNG.

    A column for each image, a row for each block, which shows one channel of it: the one whose
    time constant varies most over these images.

    Args:
        images: ``(B, 3, H, W)``, uint8, or floating point in [-1, 1].
        names: of the images.
        found: time constants of each block, ``(B, channels, height, width)``, in units of the
            time for which the states flow.
        path: the PNG.

    Raises:
        ValueError: the images are not as described, or their number is another.
        OSError: the file could not be written.
    """
    if {len(names), *map(len, found)} != {len(images)}:
        raise ValueError(f"names and time constants must be of {len(images)} images, as given")
    figure = new_figure(1.1 * len(names) + 1.2, 1.15 * len(found) + 1.7)
    ratios = [1.0] * len(names) + [0.12]  # the last column is for the scales
    axes = figure.subplots(len(found) + 1, len(ratios), squeeze=False, width_ratios=ratios)
    axes[0, -1].set_visible(False)
    for panel, name, pixels in zip(axes[0, :-1], names, as_pixels(images), strict=True):
        panel.imshow(pixels.numpy())
        panel.set_title(name, fontsize=9)
    for row, tau in zip(axes[1:], found, strict=True):
        channel = int(tau.std((0, 2, 3)).argmax())
        shown = tau[:, channel]  # (B, height, width)
        low, high = float(shown.min()), float(shown.max())
        for panel, one in zip(row[:-1], shown, strict=True):
            drawn = panel.imshow(one.numpy(), vmin=low, vmax=high)
        row[0].set_ylabel(f"{tau.shape[2]}×{tau.shape[3]}\nchannel {channel}", fontsize=9)
        figure.colorbar(drawn, cax=row[-1])
    for panel in axes[:, :-1].flat:
        panel.set(xticks=[], yticks=[])
    figure.suptitle(
        "Time constants in the liquid blocks, whose states flow for 1: of each block the channel "
        "that varies most", fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    return save_figure(figure, path)
