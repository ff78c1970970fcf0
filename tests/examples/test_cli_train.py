"""The command line of training: its help, its errors, and that it does what it is told."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from liquid_ode import load_run
from liquid_ode.training import PRESETS, TrainConfig
from liquid_ode.training.cli import main, parse
from tests.runs import EXAMPLES

SMALL = ["--model-option", "channels=8", "--model-option", "hidden=(4, 4, 4)",
         "--model-option", "inner=8", "--model-option", "conditioning=8",
         "--model-option", "steps=(1, 1, 1)"]  # fmt: skip
QUICK = ["--image-size", "8", "--batch-size", "2", "--max-steps", "2", "--samples", "4",
         "--sample-steps", "2", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
    return folder


def help_text(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--help"])
    assert done.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("preset", list(PRESETS))
def test_help_shows_every_setting_and_the_defaults_of_the_preset(
    capsys: pytest.CaptureFixture[str], preset: str
) -> None:
    text = help_text(capsys, "--preset", preset)
    start = text.index("options:")
    config = TrainConfig.from_preset(preset)
    special = {"model_options": "--model-option", "solver_options": "--solver-option"}
    for field in dataclasses.fields(TrainConfig):
        flag = special.get(field.name, "--" + field.name.replace("_", "-"))
        value = getattr(config, field.name)
        if isinstance(value, dict) and value:
            value = ", ".join(f"{key}={entry}" for key, entry in value.items())
        words = {"None": field.metadata.get("unset"), "True": "on", "False": "off", "{}": "none",
                 "[]": "none"}  # fmt: skip
        shown = words.get(str(value), str(value))
        described = re.search(rf" {flag}[ ,](.*?)\(default: (.*?)[);]", text[start:])
        assert described is not None, flag
        assert described[2] == shown, flag
    for flag in ("--solver-steps", "--rtol", "--atol", "--preset", "--resume"):
        assert f" {flag} " in text


def test_options_become_settings() -> None:
    given = parse(
        ["--solver", "midpoint", "--solver-steps", "2", "--rtol", "1e-3", "--lr", "1e-3",
         "--solver-option", "kind=fast", "--model-option", "hidden=[1, 2, 3]", "--flip",
         "--gradient-clip", "none", "--limit", "64", "--no-channels-last"]
    )  # fmt: skip
    assert given == {
        "solver": "midpoint", "solver_options": {"kind": "fast", "rtol": 1e-3}, "lr": 1e-3,
        "model_options": {"hidden": [1, 2, 3], "steps": 2}, "flip": True,
        "gradient_clip": None, "limit": 64, "channels_last": False,
    }  # fmt: skip
    assert parse(["--solver-steps", "3", "5", "7"])["model_options"] == {"steps": [3, 5, 7]}


def test_a_run_by_the_command_line(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = []
    monkeypatch.setattr("liquid_ode.training.cli.keep_freed_memory", lambda: kept.append(True))
    run = tmp_path / "run"
    arguments = ["--data", f"folder:{images}", *SMALL, *QUICK, "--output", str(run)]
    assert main(["--solver", "midpoint", "--solver-steps", "2", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert kept == [True]
    for fact in ("improved, ", "parameters", "midpoint", "4 images of 8x8", "cpu, ", str(run)):
        assert fact in out
    assert f"{run}/samples/epoch_0001.png" in out
    assert f"{run}/ema.safetensors" in out
    assert f"liquid-ode sample {run}" in out
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["model_options"]["steps"] == 2
    assert config["solver"] == "midpoint"

    assert main(arguments) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["--resume", str(run), "--seed", "5"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "seed 0 -> 5" in err
    assert main(["--resume", str(run), "--lr", "2e-4", "--log-every", "9"]) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.fixture
def _own_module() -> Iterator[None]:
    yield
    sys.modules.pop("my_solvers", None)


MINE = """
import solvers

class Mine(solvers.Heun, step_size=solvers.Uniform(3)):
    "Heun's method, in a module of one's own."
"""


@pytest.mark.usefixtures("_own_module")
def test_a_run_with_a_solver_of_ones_own(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is found again by the run's record, from where its module can be imported."""
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    for folder in (work, elsewhere):
        folder.mkdir()
    (work / "my_solvers.py").write_text(MINE)
    monkeypatch.chdir(work)
    given = ["--data", f"folder:{images}", *SMALL, *QUICK, "--solver", "my_solvers:Mine"]
    assert main(given) == 0
    (run,) = (work / "runs").iterdir()
    assert re.fullmatch(r"[\w.-]+my_solvers-Mine[\w.-]+", run.name)
    assert json.loads((run / "config.json").read_text())["config"]["solver"] == "my_solvers:Mine"
    assert main(["--resume", str(run), "--max-steps", "3"]) == 0

    monkeypatch.chdir(elsewhere)
    del sys.modules["my_solvers"]
    capsys.readouterr()
    assert main(["--resume", str(run)]) == 2
    err = capsys.readouterr().err
    assert "solver 'my_solvers:Mine': there is no module 'my_solvers'" in err
    assert f"nor in the current directory, {elsewhere}" in err
    with pytest.raises(ValueError, match="there is no module 'my_solvers'"):
        load_run(run)
    monkeypatch.syspath_prepend(work)
    diffusion = load_run(run)
    held = [each for part in diffusion.modules() if (each := getattr(part, "solver", None))]
    assert held
    assert all(type(solver).__name__ == "Mine" for solver in held)


def test_a_script_looks_into_the_current_directory(tmp_path: Path) -> None:
    """Python itself looks into the folder of the script alone."""
    (tmp_path / "my_solvers.py").write_text(MINE)
    found = subprocess.run(
        [sys.executable, str(EXAMPLES / "train_cifar.py"), "--solver", "my_solvers:Other"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert "my_solvers.py) has no 'Other'" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--solver", "eular"], "unknown solver 'eular' (did you mean 'euler'?)"),
        (["--solver-option", "colour=red"], "takes no option 'colour'"),
        (
            ["--solver-option", "sharpness=abc"],
            "sharpness must be a number in (-inf, inf), not 'abc'",
        ),
        (["--solver-option", "steps=9"], "use --solver-steps"),
        (["--model-option", "channels=-64", "--data", "folder:IMAGES"], "channels must be a mul"),
        (["--solver-steps", "1", "2", "--data", "folder:IMAGES"], "takes 3 values, not (1, 2)"),
        (["--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["--data", "folder:/no/such/folder"], "/no/such/folder"),
        (["--data", "folder:~nosuchuser/x"], "begins with a home folder that is not known"),
        (["--data", "imagenet"], "data must be 'cifar10' or 'folder:PATH'"),
        (["--resume", "/no/such/run"], "/no/such/run is not a run directory"),
        (["--model-option", "colour=red", "--data", "folder:IMAGES"], "colour"),
        (["--data", "folder:IMAGES", "--batch-size", "99"], "lower batch_size"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [argument.replace("IMAGES", str(images)) for argument in arguments]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--limit", "x"], "argument --limit: invalid int value: 'x'"),
        (["--preset", "huge"], "invalid choice: 'huge'"),
        (["--solver-option", "steps"], "expected KEY=VALUE, got 'steps'"),
        (["--preset", "unet", "--resume", "x"], "exclude each other"),
        (["--output", "x", "--resume", "y"], "exclude each other"),
        (["--epoch", "3"], "unrecognized arguments: --epoch"),
    ],
)
def test_an_argument_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2
    assert message in capsys.readouterr().err
