"""What a run makes of its images: their shape, their classes, and what is refused at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from liquid_ode.data import DataError
from liquid_ode.diffusion import DDIM
from liquid_ode.training import TrainConfig, load_run, train
from liquid_ode.training.reporting import Reporter
from tests.runs import draw_images, small_config


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two class folders of four images each."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("cat", "dog"):
        draw_images(folder / name, 4)
    return folder


def test_the_shape_of_images_as_settings() -> None:
    config = TrainConfig(image_size="24x32", image_channels=1)
    assert config.image_shape == (1, 24, 32)
    assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig(image_size="16x16").image_size == 16
    assert "24x32px-image-channels1" in config.run_name
    for settings, match in (
        ({"image_size": "24by32"}, "height and width, as 24x32, got '24by32'"),
        ({"image_size": None}, "got None"),
        ({"image_channels": 2}, "image_channels must be one of 1, 3, 4, got 2"),
        ({"model_options": {"image_channels": 1}}, "set it as --image-channels"),
    ):
        with pytest.raises(ValueError, match=match):
            TrainConfig(**settings)  # type: ignore[arg-type]


def test_a_run_on_rectangles_with_classes(classes: Path, tmp_path: Path) -> None:
    config = small_config(
        classes, tmp_path / "run", image_size="8x12", class_conditional=True, samples=2,
        sample_steps=2,
    )  # fmt: skip
    run = train(config, reporter=Reporter())
    record = json.loads((run / "config.json").read_text())
    assert record["config"]["image_size"] == "8x12"
    assert record["data"]["class_names"] == ["cat", "dog"]
    with Image.open(next(run.glob("samples/*.png"))) as grid:
        assert grid.size == (2 * (2 * 12 + 2) + 2, 2 * 8 + 2 * 2)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_a_run_on_grey_or_transparent_images(
    classes: Path, tmp_path: Path, channels: int, mode: str
) -> None:
    config = small_config(
        classes, tmp_path / "run", image_channels=channels, samples=2, sample_steps=2, max_steps=1
    )
    run = train(config, reporter=Reporter())
    with Image.open(next(run.glob("samples/*.png"))) as grid:
        assert grid.mode == mode
    diffusion = load_run(run, device="cpu")
    sampled = DDIM(2).sample(diffusion, 1, image_shape=config.image_shape)
    assert sampled.shape == (1, channels, 8, 8)


def test_a_stray_file_stops_a_run_with_classes_before_it_begins(
    classes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (classes / "cat" / "00.png").rename(classes / "stray.png")
    config = small_config(classes, tmp_path / "run", class_conditional=True)
    with pytest.raises(DataError, match=r"1 of 8 are elsewhere, first stray\.png: move them"):
        train(config, reporter=Reporter())
    assert not (tmp_path / "run").exists()
    plain = small_config(classes, tmp_path / "run", samples=0, max_steps=1)
    run = train(plain, reporter=Reporter())
    assert "first stray.png" in caplog.text
    assert json.loads((run / "config.json").read_text())["data"]["class_names"] is None
