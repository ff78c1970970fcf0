"""``liquid-ode evaluate`` on a run that is made for it, and on images in files."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from liquid_ode.data import load_folder
from liquid_ode.diffusion import DDIM, TrailingGrid
from liquid_ode.evaluation import PixelStatistics, Yardstick, denoising_loss, quantised
from liquid_ode.training import Reporter, load_run, train
from tests.runs import check_refusal, load_script, small_config

N = 200


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("evaluate")


def make_folder(folder: Path, seed: int) -> Path:
    folder.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("images")
    return make_folder(place / "train", 0), make_folder(place / "test", 1)


@pytest.fixture(scope="module")
def run(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    config = small_config(folders[0], output, batch_size=50, samples=0)
    return train(config, reporter=Reporter())


def record_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_run_is_measured_on_its_own_kind_of_data(
    script: ModuleType,
    run: Path,
    folders: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["-n", str(N), "--steps", "2", "--device", "cpu", "--held-out", str(folders[1])]
    assert script.main([str(run), *arguments]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    record = record_of(run / f"evaluation-ddim-steps2-seed0-n{N}.json")

    training, held_out = (load_folder(folder, image_size=8) for folder in folders)
    diffusion = load_run(run, device="cpu")
    sampler = DDIM(TrailingGrid(2, sigma_max=40.0))  # the usual one of a model of the noise
    drawn = sampler.sample(diffusion, N, seeds=0, batch_size=250, image_shape=(3, 8, 8))
    wanted = Yardstick(held_out, training).measure(drawn)
    assert record["images"] == pytest.approx(vars(wanted.images), rel=1e-3, abs=1e-4)
    assert wanted.real is not None
    assert record["real"] == pytest.approx(vars(wanted.real), rel=1e-3, abs=1e-4)
    assert record["pixels"] == pytest.approx(vars(PixelStatistics.of(quantised(drawn))))
    assert record["loss"]["mean"] == pytest.approx(denoising_loss(diffusion, held_out).mean)
    assert record["evaluations"] == 2
    assert record["title"] == "FD-cnn"
    assert Path(record["neighbours"]).is_file()
    assert 0 < record["neighbour_ratio"] < 10
    assert f"{wanted.images.fd:.3f}" in out
    assert "real training images" in out
    assert "noise 5/5" in out


def test_images_in_files_are_measured_alike(
    script: ModuleType,
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pixels = load_folder(folders[0], image_size=8).images
    array = tmp_path / "samples.npz"
    np.savez(array, images=pixels.permute(0, 2, 3, 1).numpy())
    folder = make_folder(tmp_path / "samples", 0)
    arguments = ["--neighbours", "0", "--device", "cpu", "--held-out", str(folders[1])]
    sources = [str(array), str(folder)]
    options = [*arguments, "--training", str(folders[0]), "--json", str(tmp_path / "all.json")]
    assert script.main([*sources, *options]) == 0, capsys.readouterr().err
    first, second = json.loads((tmp_path / "all.json").read_text())
    assert first["images"] == second["images"]
    assert first["images"] == pytest.approx(first["real"])
    assert record_of(tmp_path / "samples.npz.evaluation.json") == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "CIFAR-10 is no measure for it: name a folder"),
        (["RUN", "--held-out", "TRAIN"], "200 of the 200 held-out images are training images"),
        (["RUN", "--held-out", "TEST", "-n", "192"], "needs more than 192 images, got -n 192"),
        (["RUN", "--held-out", "TEST", "--weights", "best"], "has no best weights"),
        (["RUN", "--held-out", "NONE"], "does not exist"),
        (["RUN", "NONE", "--held-out", "TEST"], "is no run, no folder of images and no .npz"),
        (["RUN", "--held-out", "TEST", "-n", "-1"], "-n and --neighbours must be at least 0"),
        (["RUN", "--held-out", "TEST", "--steps", "0"], "steps"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    script: ModuleType,
    run: Path,
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    places = {
        "RUN": run, "TRAIN": folders[0], "TEST": folders[1], "NONE": tmp_path / "none"
    }  # fmt: skip
    words = [str(places.get(word, word)) for word in arguments]
    status = script.main([*words, "--device", "cpu"])
    check_refusal(status, capsys.readouterr().err, message)


def test_broken_arrays_are_one_line(
    script: ModuleType,
    tmp_path: Path,
    folders: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    array = tmp_path / "samples.npz"
    options = ["--held-out", str(folders[1]), "--training", str(folders[0])]
    contents: dict[str, Any] = {
        "holds no array 'images'": {"pixels": np.zeros(3)},
        "must be uint8 (N, H, W, C)": {"images": np.zeros((3, 8, 8, 3))},
        "1 or 3 channels": {"images": np.zeros((3, 3, 8, 8), dtype=np.uint8)},
        "at least 8 pixels a side, not 4x5": {"images": np.zeros((N, 4, 5, 3), np.uint8)},
        "more than 192 images, got 3": {"images": np.zeros((3, 8, 8, 3), np.uint8)},
    }
    for message, arrays in contents.items():
        np.savez(array, **arrays)
        check_refusal(script.main([str(array), *options]), capsys.readouterr().err, message)
    array.write_bytes(b"not a zip")
    check_refusal(script.main([str(array), *options]), capsys.readouterr().err, "holds no array")


def test_the_loss_alone_needs_no_samples(
    script: ModuleType, run: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-n", "0", "--device", "cpu", "--held-out", str(folders[1])]
    torch.manual_seed(0)
    assert script.main([str(run), *arguments]) == 0
    out = capsys.readouterr().out
    assert "held-out loss" in out
    assert "FD-cnn" not in out
