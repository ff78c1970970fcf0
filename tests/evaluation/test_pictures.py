"""Grids of images and the curve of the loss, as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from liquid_ode.data import to_model_range
from liquid_ode.evaluation import plot_metrics, save_grid, save_image


def read(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return pil_to_tensor(image)


def test_a_grid_shows_the_images_in_reading_order(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    path = save_grid(images, tmp_path / "new" / "grid.png", columns=3, scale=1)
    grid = read(path)
    assert grid.shape == (3, 2 * 6 + 2, 3 * 8 + 2)
    for index, image in enumerate(images):
        top, left = 2 + index // 3 * 6, 2 + index % 3 * 8
        assert torch.equal(grid[:, top : top + 4, left : left + 6], image)
    assert (grid[:, 8:, 18:] == 255).all()  # the sixth place is empty


def test_floats_and_bytes_give_the_same_picture(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    a = save_grid(images, tmp_path / "a.png")
    b = save_grid(to_model_range(images), tmp_path / "b.png")
    assert a.read_bytes() == b.read_bytes()
    assert read(a).shape == (3, 12, 22)  # pixels of 2 x 2, and as many columns as images


def test_one_image_is_saved_as_it_is(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 5, 4), dtype=torch.uint8)
    assert torch.equal(read(save_image(image, tmp_path / "one.png")), image)


def test_grey_and_transparent_images_keep_their_channels(tmp_path: Path) -> None:
    for channels, mode in ((1, "L"), (4, "RGBA")):
        pixels = torch.randint(0, 256, (3, channels, 5, 4), dtype=torch.uint8)
        path = save_grid(pixels, tmp_path / "grid.png", columns=3, scale=1)
        with Image.open(path) as grid:
            assert grid.mode == mode
            corner = grid.crop((2, 2, 6, 7))
        expected = pixels[0].permute(1, 2, 0).flatten().tolist()
        assert list(corner.tobytes()) == expected


def test_a_grid_carries_its_text(tmp_path: Path) -> None:
    path = save_grid(torch.zeros(1, 3, 4, 4), tmp_path / "grid.png", text={"made": "by η = 1"})
    with Image.open(path) as grid:
        assert grid.info["made"] == "by η = 1"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 4, 4), "must be"),
        (torch.zeros(0, 3, 4, 4), "N > 0"),
        (torch.zeros(1, 2, 4, 4), "must be"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), "uint8 or floating point"),
        (torch.full((1, 3, 4, 4), float("nan")), "NaN"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_grid(images, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_a_grid_needs_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        save_grid(torch.zeros(1, 3, 4, 4), tmp_path / "x.png", columns=0)


@pytest.mark.parametrize("count", [1, 5, 300])
def test_the_loss_is_drawn(tmp_path: Path, count: int) -> None:
    records = [{"step": 50 * (i + 1), "loss": 1 / (i + 1)} for i in range(count)]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    picture = read(plot_metrics(metrics, tmp_path / "loss.png"))
    assert picture.shape[1] > 300
    assert picture.float().std() > 5  # something is on it


def test_no_metrics_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no metrics to draw"):
        plot_metrics(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
