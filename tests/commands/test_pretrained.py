"""The runs that come with the package, as the commands take them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from liquid_ode.commands import main
from liquid_ode.commands.pretrained import shipped
from liquid_ode.trained import SHORT, trained_run, trained_runs
from liquid_ode.training import TrainConfig, load_config
from liquid_ode.training.cli import parse
from liquid_ode.training.config import FREE


def test_the_list_has_what_each_measures_and_what_made_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["pretrained"]) == 0
    out = capsys.readouterr().out
    for name in trained_runs():
        run = shipped(name)
        assert f"{run.distance:.2f}" in out
        assert run.sha256[:16] in out
        assert run.command in out


@pytest.mark.parametrize("name", trained_runs())
def test_the_command_that_made_a_run_gives_its_settings(name: str) -> None:
    _, command, *words = shlex.split(shipped(name).command)
    assert command == "train"
    given = parse(words)
    config = TrainConfig.from_preset(given.pop("preset", "improved"), **given)
    found, expected = config.to_dict(), load_config(trained_run(name)).to_dict()
    for setting in found.keys() - FREE - {"precision"}:
        assert found[setting] == expected[setting], setting


def test_sampling_goes_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(trained_run("unet").iterdir())
    few = ["-n", "1", "--steps", "2", "--device", "cpu"]
    assert main(["sample", "pretrained:unet", *few]) == 0
    out = capsys.readouterr().out
    assert f"of pretrained:{SHORT['unet']} (ema weights)" in out
    home = Path("runs") / f"pretrained-{SHORT['unet']}"
    assert (home / "samples-ddim-steps2-seed0-n1.png").is_file()
    assert main(["report", "pretrained:unet", "-n", "1", "--steps", "2", "--device", "cpu"]) == 0
    assert f"page     {home / 'report.html'}" in capsys.readouterr().out
    assert sorted(trained_run("unet").iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "pretrained:improvd"], "unknown run 'improvd' (did you mean 'improved'?)"),
        (["sample", "improved"], "(did you mean 'pretrained:improved'?)"),
        (["sample", "pretrained:unet", "--weights", "model"], "comes with the weights 'ema' alone"),
        (["train", "--resume", "pretrained:unet"], "--init-from pretrained:unet"),
        (["report", "pretrained:x"], "unknown run 'x'"),
        (["edit", "pretrained:x"], "unknown run 'x'"),
        (["likelihood", "pretrained:x"], "unknown run 'x'"),
        (["evaluate", "pretrained:x"], "unknown run 'x'"),
        (["compare", "pretrained:unet"], "has no liquid cells"),
    ],
)
def test_refusals(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_a_run_of_a_like_name_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "improved-euler-seed0"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    assert main(["sample", "runs/improved-eular-seed0"]) == 2
    assert "(did you mean 'runs/improved-euler-seed0'?)" in capsys.readouterr().err
    run.rename(tmp_path / "runs" / "w")  # a short name is not alike for standing in the same folder
    assert main(["sample", "runs/nix"]) == 2
    assert "did you mean" not in capsys.readouterr().err
