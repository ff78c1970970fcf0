"""examples/sample.py on a run that is made for it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from liquid_ode.training import Reporter, train
from tests.runs import draw_images, load_script, small_config

SCRIPT = Path(__file__).parents[2] / "examples" / "sample.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("sample")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = draw_images(tmp_path_factory.mktemp("images"), 4)
    output = tmp_path_factory.mktemp("runs") / "run"
    config = small_config(images, output, lr=0.05, samples=9, sample_steps=3)
    return train(config, reporter=Reporter())


def test_the_same_seed_gives_the_grid_of_the_training(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    separate = tmp_path / "each"
    arguments = [str(run), "-n", "9", "--steps", "3", "--device", "cpu"]
    assert script.main([*arguments, "--separate", str(separate)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "9 images in " in out
    assert "images/s" in out
    assert str(run / "samples.png") in out
    assert [path.name for path in sorted(separate.iterdir())] == [
        f"seed_{index:06d}.png" for index in range(9)
    ]
    with Image.open(run / "samples.png") as grid:
        assert grid.size == (3 * 18 + 2, 3 * 18 + 2)
    with Image.open(separate / "seed_000004.png") as image:
        assert image.size == (8, 8)


def test_another_solver_and_other_weights_give_other_images(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pictures(*options: str) -> bytes:
        out = tmp_path / "out.png"
        arguments = ["-n", "4", "--steps", "2", "--precision", "no", "-o", str(out)]
        assert script.main([str(run), *arguments, *options]) == 0
        return out.read_bytes()

    own = pictures()
    assert pictures("--batch-size", "3") == own
    variants = [
        pictures("--solver", "midpoint"),
        pictures("--solver-steps", "1"),
        pictures("--solver", "dopri5", "--rtol", "1e-2", "--atol", "1e-2"),
        pictures("--weights", "model"),
        pictures("--seed", "10"),
        pictures("--eta", "1"),
    ]
    assert len({own, *variants}) == 7
    assert "solver midpoint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--solver", "magic"], "unknown solver 'magic'"),
        (["--rtol", "1e-3"], "solver 'euler' takes no option 'rtol'"),
        (["-n", "0"], "n must be"),
        (["--steps", "5000"], "steps must be at most 1000"),
        (["--guidance-scale", "3"], "guidance_scale"),
        (["--class-label", "1"], "no classes"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    script: ModuleType,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert script.main([str(run), "--device", "cpu", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_weights_of_another_model_are_refused(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run / "config.json").read_text().replace('"channels": 8', '"channels": 16')
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "ema.safetensors").write_bytes((run / "ema.safetensors").read_bytes())
    assert script.main([str(tmp_path)]) == 2
    assert "does not fit model 'improved'" in capsys.readouterr().err
    assert script.main([str(tmp_path), "--weights", "model"]) == 2
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "-1"], "-n must be at least 1"),
        (["--solver-option", "steps=3"], "use --solver-steps"),
        (["--solver", "dopri5", "--solver-option", "max_steps=1"], "largest number of steps"),
        (["-o", "FOLDER"], "FOLDER"),
    ],
)
def test_what_cannot_be_sampled_is_one_line(
    script: ModuleType,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    words = [word.replace("FOLDER", str(tmp_path)) for word in arguments]
    assert script.main([str(run), "-n", "2", "--steps", "2", "--device", "cpu", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message.replace("FOLDER", str(tmp_path)) in err
