"""examples/edit.py, likelihood.py and train_sampler.py on a run that is made for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from liquid_ode.diffusion import LearnedSampler
from liquid_ode.training import Reporter, train
from tests.runs import check_refusal, draw_images, load_script, small_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = draw_images(tmp_path_factory.mktemp("images"), 4)
    output = tmp_path_factory.mktemp("runs") / "run"
    config = small_config(images, output, samples=0)
    return train(config, reporter=Reporter())


def called(name: str, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert load_script(name).main(list(options)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_edit_draws_its_four_pictures(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["-n", "2", "--steps", "2", "--resamplings", "1", "-o", str(tmp_path)]
    out = called("edit", capsys, str(run), *small)
    sizes = {}
    for path in tmp_path.iterdir():
        assert str(path) in out
        with Image.open(path) as picture:
            sizes[path.stem] = tuple((side - 2) // 18 for side in picture.size)
    # columns and rows, of 8 pixels twice as large and a gap
    assert sizes == {
        "reconstruct": (2, 3), "interpolate": (8, 1), "vary": (8, 2), "inpaint": (2, 4),
    }  # fmt: skip
    assert "DDIMInversion  is off by" in out


def test_likelihood_prints_its_convergence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = called("likelihood", capsys, str(run), "-n", "2", "--steps", "2", "4", "--solver", "heun")
    _, heading, columns, *rows = out.splitlines()
    assert heading.startswith("2 images of the training folder, heun from sigma 0.00")
    assert "at 2N  difference" in columns
    first, second = ([float(word) for word in row.split()] for row in rows)
    assert first[:2] == [4, 8]
    assert second[:2] == [8, 16]
    assert second[2] == first[3]  # 4 steps, once doubled and once not
    assert first[4] == pytest.approx(first[3] - first[2], abs=2e-4)


def test_a_trained_sampler_samples(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sampler.safetensors"
    small = ["--images", "4", "--held-out", "2", "--steps", "2", "--teacher", "heun"]
    out = called("train_sampler", capsys, str(run), "--evaluations", "3", *small, "-o", str(path))
    assert f"--sampler learned:{path}" in out
    assert LearnedSampler.load(path).evaluations == 3
    grid = tmp_path / "grid.png"
    drawing = ["-n", "4", "--sampler", f"learned:{path}", "-o", str(grid)]
    out = called("sample", capsys, str(run), *drawing)
    assert "3 evaluations of the denoiser for each image" in out
    assert grid.is_file()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("edit", ["-n", "3"], "even"),
        ("edit", ["-n", "6"], "there are 4 images"),
        ("edit", ["-n", "2", "--steps", "0"], "steps must be"),
        ("likelihood", ["-n", "0"], "number of images"),
        ("likelihood", ["-n", "1", "--solver", "tsit5"], "driven by a tolerance"),
        ("likelihood", ["-n", "1", "--probes", "1"], "probes must be"),
        ("train_sampler", ["--evaluations", "1"], "at least 2 noise levels"),
        ("train_sampler", ["--images", "0"], "images must be"),
        ("train_sampler", ["--teacher-steps", "0"], "steps must be"),
        ("sample", ["--sampler", "learned:nowhere.safetensors"], "there is no file nowhere"),
        ("sample", ["--sampler", "learned:x", "--steps", "3"], "--steps has no effect"),
        ("sample", ["--sampler", "magic"], "--sampler must be one of"),
    ],
)
def test_refusals(
    name: str, options: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = load_script(name).main([str(run), *options])
    check_refusal(status, capsys.readouterr().err, message)
