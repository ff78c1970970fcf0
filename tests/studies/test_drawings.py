"""The pictures of the studies are written as all pictures are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from liquid_ode.comparing import plots
from studies import sequence_plots, vision_plots


def draw_lines(path: Path) -> Path:
    curve = sequence_plots.Curve(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.3]))
    return sequence_plots.plot_lines({"a": curve}, path, axis="x", value="y", heading="")


DRAWINGS: dict[str, Callable[[Path], Path]] = {
    "lines": draw_lines,
    "accuracy": lambda path: vision_plots.plot_accuracy({"a": [(60.0, 0.5)]}, path),
    "image rows": lambda path: plots.plot_image_rows([("a", torch.zeros(1, 3, 8, 8))], path, ""),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_makes_its_directory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "folder" / "picture.png"
    assert DRAWINGS[name](path) == path
    with Image.open(path) as picture:
        assert picture.format == "PNG"
