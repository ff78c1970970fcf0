"""examples/sample.py on runs that are made for it: what it draws, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from liquid_ode.diffusion import DDIM, Guidance, TrailingGrid
from liquid_ode.sampling import cli
from liquid_ode.training import Reporter, load_run, train
from tests.runs import check_refusal, draw_images, load_script, small_config

FEW = ["-n", "4", "--device", "cpu", "--precision", "no"]
GIVEN = ["--steps", "2", *FEW]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("sample")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = draw_images(tmp_path_factory.mktemp("images"), 4)
    output = tmp_path_factory.mktemp("runs") / "run"
    config = small_config(images, output, lr=0.05, samples=9, sample_steps=3)
    return train(config, reporter=Reporter())


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three classes, whose names are in its record."""
    images = tmp_path_factory.mktemp("classes")
    for name in ("cat", "dog", "Elk"):
        draw_images(images / name, 2)
    config = small_config(
        images, images / "run", lr=0.05, samples=0, class_conditional=True, max_steps=1
    )
    return train(config, reporter=Reporter())


def test_the_same_seed_gives_the_grid_of_the_training(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    separate, grid = tmp_path / "each", tmp_path / "grid.png"
    arguments = [str(run), "-n", "9", "--steps", "3", "--device", "cpu"]
    assert script.main([*arguments, "--separate", str(separate), "-o", str(grid)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "3 evaluations of the denoiser for each image" in out
    assert "9 images in " in out
    assert "images/s" in out
    assert str(grid) in out
    assert [path.name for path in sorted(separate.glob("*.png"))] == [
        f"seed_{index:06d}.png" for index in range(9)
    ]
    with Image.open(grid) as ours, Image.open(next((run / "samples").glob("*.png"))) as theirs:
        assert ours.size == (3 * 18 + 2, 3 * 18 + 2)
        assert theirs.size[1] * theirs.size[0] > 0
    with Image.open(separate / "seed_000004.png") as image:
        assert image.size == (8, 8)


def test_another_choice_gives_other_images(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pixels(*options: str) -> bytes:
        out = tmp_path / "out.npz"
        out.unlink(missing_ok=True)
        assert script.main([str(run), *FEW, "--npz", str(out), *options]) == 0
        with np.load(out) as found:
            return bytes(found["images"].tobytes())

    own = pixels("--steps", "2")
    assert pixels("--steps", "2", "--batch-size", "3") == own
    variants = [
        pixels("--steps", "2", "--solver", "midpoint"),
        pixels("--steps", "2", "--solver-steps", "1"),
        pixels("--steps", "2", "--solver", "dopri5", "--rtol", "1e-2", "--atol", "1e-2"),
        pixels("--steps", "2", "--weights", "model"),
        pixels("--steps", "2", "--seed", "10"),
        pixels("--steps", "2", "--eta", "1"),
        pixels("--steps", "2", "--sigma-max", "5"),
        pixels("--steps", "2", "--grid", "karras"),
        pixels("--times", "900", "50"),
        pixels("--sigmas", "9", "0.5"),
        pixels("--sampler", "ddpm", "--steps", "2", "--variance", "1"),
        pixels("--sampler", "dpm-solver++", "--steps", "4"),
        pixels("--sampler", "heun", "--steps", "4", "--churn", "2"),
        pixels("--sampler", "probability-flow", "--steps", "3"),
        pixels(
            "--sampler", "probability-flow", "--sampler-solver", "bosh3", "--sampler-rtol", "0.1"
        ),
    ]
    assert len({own, *variants}) == 16
    out = capsys.readouterr().out
    assert "solver midpoint" in out
    assert "7 evaluations" in out  # of heun on four levels


def test_no_grid_overwrites_one_that_was_made_otherwise(
    script: ModuleType, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def name(*options: str) -> str:
        assert script.main([str(run), *FEW, *options]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if "grid " in line)
        return Path(line.split(maxsplit=1)[1]).name

    first = "samples-ddim-steps2-seed0-n4.png"
    assert name("--steps", "2") == first
    kept = (run / first).read_bytes()
    assert name("--steps", "2") == first  # made in the same way: it is the same
    weights = run / "ema.safetensors"
    before = weights.read_bytes()
    weights.write_bytes((run / "model.safetensors").read_bytes())  # as after more training
    try:
        assert name("--steps", "2") == "samples-ddim-steps2-seed0-n4-2.png"
        assert name("--steps", "2") == "samples-ddim-steps2-seed0-n4-2.png"
    finally:
        weights.write_bytes(before)
    assert (run / first).read_bytes() == kept


def test_classes_by_number_and_by_name(
    script: ModuleType, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def drawn(*options: str) -> tuple[list[int], bytes]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        assert script.main([str(classes), *GIVEN, "--npz", str(path), *options]) == 0
        with np.load(path) as found:
            return found["labels"].tolist(), found["images"].tobytes()

    assert drawn()[0] == [0, 1, 2, 0]
    assert drawn("--class-label", "DOG") == drawn("--class-label", "2")
    assert "2 dog" in capsys.readouterr().out
    labels, _ = drawn("--class-label", "cat", "0")
    assert labels == [1, 0, 1, 0]
    plain = drawn("--class-label", "dog")
    guided = drawn("--class-label", "dog", "--guidance-scale", "3")
    assert "two calls of the model each" in capsys.readouterr().out
    assert plain != guided
    tamed = drawn("--class-label", "dog", "--guidance-scale", "3", "--guidance-rescale", "1")
    assert tamed not in (plain, guided)
    never = ["--guidance-interval", "1e6", "1e7"]
    assert drawn("--class-label", "dog", "--guidance-scale", "3", *never) == plain

    folder = tmp_path / "folder"
    assert script.main([str(classes), *GIVEN, "--separate", str(folder)]) == 0
    assert (folder / "seed_000001_class_1.png").exists()


def test_guidance_by_depth_is_guidance_by_the_model_stopped_early(
    script: ModuleType, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # whatever stops early: here the same weights with other steps
    def stopped_early(model: torch.nn.Module, steps: int) -> torch.nn.Module:
        assert steps == 1
        return load_run(run, solver_steps=1, device="cpu").model

    diffusion = load_run(run, device="cpu")
    monkeypatch.setattr(type(diffusion.model), "stopped_early", stopped_early, raising=False)
    path = tmp_path / "a.npz"
    depth = ["--depth-guidance", "2.5", "--early-steps", "1"]
    assert script.main([str(run), *GIVEN, "--npz", str(path), *depth]) == 0
    guidance = Guidance(2.5, weak=load_run(run, solver_steps=1, device="cpu"))
    sampler = DDIM(TrailingGrid(2, sigma_max=40.0))  # the usual one of a model of the noise
    images = sampler.sample(diffusion, 4, guidance=guidance, image_shape=(3, 8, 8))
    expected = ((images + 1) * 127.5).round().permute(0, 2, 3, 1)
    with np.load(path) as found:
        assert np.array_equal(found["images"], expected.numpy())


def test_the_animation_ends_with_the_images(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gif, png = tmp_path / "a.gif", tmp_path / "a.png"
    arguments = [str(run), *FEW, "--steps", "5", "--batch-size", "3"]
    assert script.main([*arguments, "--animate", str(gif), "-o", str(png)]) == 0
    assert str(gif) in capsys.readouterr().out
    with Image.open(gif) as frames, Image.open(png) as grid:
        assert frames.n_frames == 5
        frames.seek(4)
        last, image = frames.convert("RGB"), grid.convert("RGB")
        assert last.size == image.size
        shown = (slice(0, 18), slice(0, 36))  # two of the first batch; a GIF has 256 colours
        difference = np.asarray(last, int)[shown] - np.asarray(image, int)[shown]
        assert abs(difference).mean() < 12
    assert script.main([*arguments, "--animate"]) == 0
    assert "samples-ddim-steps5-seed0-n4.gif" in capsys.readouterr().out


def test_bulk_goes_on_where_it_was_stopped(
    script: ModuleType,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [str(run), "-n", "7", "--steps", "2", "--batch-size", "3", "--precision", "no"]
    whole, broken = tmp_path / "whole.npz", tmp_path / "broken.npz"
    assert script.main([*arguments, "--npz", str(whole)]) == 0
    draw, calls = cli.Job.draw, []

    def fail_at_the_second(*given: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(cli.Job, "draw", fail_at_the_second)
        assert script.main([*arguments, "--npz", str(broken)]) == 130
        assert not broken.exists()
    capsys.readouterr()
    assert script.main([*arguments, "--npz", str(broken)]) == 0
    assert "3 of 7 images were there already" in capsys.readouterr().out
    assert broken.read_bytes() == whole.read_bytes()
    assert script.main([*arguments, "--eta", "1", "--npz", str(broken)]) == 2
    assert "holds images made with sampler 'DDIM(" in capsys.readouterr().err
    assert broken.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--solver", "magic"], "unknown solver 'magic'"),
        (["--rtol", "1e-3"], "solver 'euler' takes no option 'rtol'"),
        (["-n", "0"], "n must be"),
        (["-n", "-1"], "-n must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--steps", "5000"], "steps must be at most 1000"),
        (["--guidance-scale", "3"], "guidance_scale"),
        (["--class-label", "1"], "no classes"),
        (["--solver-option", "steps=3"], "use --solver-steps"),
        (["--solver", "dopri5", "--solver-option", "max_steps=1"], "largest number of steps"),
        (["-o", "FOLDER"], "FOLDER is a folder: name a file for the grid"),
        (["--animate", "FOLDER"], "FOLDER is a folder: name a file for the animation"),
        (["--seed", "-1"], "seeds must be whole numbers"),
        (["--npz", "FOLDER/a.zip"], "must be named .npz"),
        # without effect
        (["--solver", "dopri5", "--solver-steps", "3"], "--solver-steps has no effect on the"),
        (["--sampler", "dpm-solver++", "--eta", "1"], "--eta has no effect with --sampler dpm"),
        (["--churn", "1"], "--churn has no effect with --sampler ddim, but with --sampler heun"),
        (["--variance", "1"], "--variance has no effect"),
        (["--sampler-solver", "heun"], "--sampler-solver has no effect"),
        (["--sampler-rtol", "1"], "--sampler-rtol has no effect"),
        (["--rho", "3"], "--rho has no effect on the grid 'trailing'"),
        (["--times", "9", "5", "--sigma-max", "3"], "--sigma-max has no effect beside --times"),
        (["--times", "9", "5", "--sigmas", "3"], "--sigmas has no effect beside --times"),
        (["--early-steps", "1"], "--early-steps has no effect without"),
        (["--guidance-rescale", "1"], "--guidance-rescale has no effect without"),
        # values
        (["--times", "5", "9"], "times must decrease"),
        (["--sigmas", "1", "2"], "sigmas must decrease"),
        (["--sigma-max", "0"], "sigma_max must be positive"),
        (["--eta", "2"], "eta must lie in"),
        (["--sampler", "ddpm", "--grid", "karras"], "needs a number of steps: give --steps"),
        (["--depth-guidance", "2"], "needs --early-steps"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    script: ModuleType,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    steps = [] if {"--times", "--sigmas", "--grid"} & {*options} else ["--steps", "2"]
    words = [word.replace("FOLDER", str(tmp_path)) for word in options]
    status = script.main([str(run), "-n", "2", "--device", "cpu", *steps, *words])
    check_refusal(status, capsys.readouterr().err, message.replace("FOLDER", str(tmp_path)))
