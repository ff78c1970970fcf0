"""The examples of a page: each runs, in a few steps, and says what it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import EXAMPLES, draw_images, load_script, on_one_thread

one_thread = pytest.fixture(autouse=True, scope="module")(on_one_thread)


def test_a_cell_in_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_script("cell_in_model").main(["--steps", "2", "--solver", "heun"]) == 0
    assert "on 500 new melodies" in capsys.readouterr().out


def test_a_sequence_with_irregular_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_script("irregular_sequence").main(["--steps", "1"]) == 0
    assert capsys.readouterr().out.count("told the times") == 2


def test_a_solver_of_ones_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from solvers import registry

    monkeypatch.setattr(registry, "_REGISTERED", {})
    assert load_script("own_solver").main() == 0
    out = capsys.readouterr().out
    assert ": 4.0" in out  # of order 2
    assert "by name: TwoThirds(steps=7)" in out


def test_a_denoiser_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_script("own_denoiser").main(steps=1) == 0
    assert "4 images" in capsys.readouterr().out


def test_a_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, run = draw_images(tmp_path / "images", 4), tmp_path / "run"
    options = ["--size", "8", "--epochs", "1", "--batch-size", "4", "--output", str(run)]
    assert load_script("train_folder").main([str(images), *options]) == 0
    assert (run / "samples.png").is_file()
    assert f"samples  {run / 'samples.png'}" in capsys.readouterr().out


def test_training_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_script("train_from_python").main(str(tmp_path / "run"), steps=1) == 0
    assert "LiquidUNet(" in capsys.readouterr().out


def test_training_by_lightning() -> None:
    pytest.importorskip("lightning")
    assert load_script("with_lightning").main(steps=1) == 0


def test_each_is_at_most_a_page() -> None:
    for path in EXAMPLES.glob("*.py"):
        limit = 110 if path.name == "fit_sine.py" else 80
        assert len(path.read_text().splitlines()) <= limit, path.name
