"""What all pictures share: where they are written, and how panels look."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from liquid_ode.evaluation import pictures
from liquid_ode.evaluation.figures import new_figure, save_figure, tidy


def draw_loss(path: Path) -> Path:
    metrics = path.parents[2] / "metrics.jsonl"
    metrics.write_text(json.dumps({"step": 1, "loss": 0.5}))
    return pictures.plot_metrics(metrics, path)


DRAWINGS: dict[str, Callable[[Path], Path]] = {
    "loss": draw_loss,
    "grid": lambda path: pictures.save_grid(torch.zeros(1, 3, 8, 8), path),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_makes_its_directory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "folder" / "picture.png"
    assert DRAWINGS[name](path) == path
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_a_file_that_is_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("something else")
    assert save_figure(new_figure(2, 1), str(path)) == path
    with Image.open(path) as picture:
        assert picture.size == (220, 110)
    assert list(tmp_path.iterdir()) == [path]


def test_settings_of_a_figure() -> None:
    assert new_figure(2, 1).get_layout_engine() is not None
    plain = new_figure(2, 1, dpi=50, layout=None)
    assert plain.get_layout_engine() is None
    assert plain.bbox.size.tolist() == [100, 50]


def test_a_tidy_panel_has_no_frame_at_the_top_and_right() -> None:
    panel = new_figure(2, 1).add_subplot()
    tidy(panel, grid="#123456")
    assert [side for side, spine in panel.spines.items() if spine.get_visible()] == [
        "left",
        "bottom",
    ]
    lines = panel.get_xgridlines()
    assert {line.get_color() for line in lines} == {"#123456"}
    assert all(line.get_visible() for line in lines)
