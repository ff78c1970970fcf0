"""The runs that come with the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import liquid_ode
from liquid_ode import trained
from liquid_ode.trained import SHORT, trained_run, trained_runs
from liquid_ode.training import (
    CheckpointError,
    Reporter,
    TrainConfig,
    load_config,
    load_run,
    train,
)
from liquid_ode.training.run_directory import RunDirectory
from tests.runs import draw_images


@pytest.mark.parametrize("name", trained_runs())
def test_a_run_loads_and_says_how_good_it_is(name: str) -> None:
    run = trained_run(name)
    load_run(run, device="cpu")
    assert load_config(run).output is None
    (evaluation, *_) = run.glob("evaluation*.json")
    assert json.loads(evaluation.read_text())["images"]["fd"] > 0


def test_an_unknown_run_is_named() -> None:
    assert trained_runs()
    with pytest.raises(ValueError, match="unknown run 'x'; there are "):
        trained_run("x")
    with pytest.raises(ValueError, match=r"did you mean 'improved'\?"):
        liquid_ode.load_pretrained("improvd")


@pytest.mark.parametrize("short", SHORT)
def test_short_names(short: str) -> None:
    if SHORT[short] not in trained_runs():
        with pytest.raises(ValueError, match=f"liquid-ode train --preset {short}"):
            trained_run(short)
        return
    assert trained_run(short) == trained_run(SHORT[short])
    model = load_config(f"pretrained:{short}").model
    assert model == {"recommended": "improved", "tuned": "liquid_unet"}.get(short, short)


def test_a_pretrained_model_is_that_of_its_run() -> None:
    one = liquid_ode.load_pretrained("liquid_unet", solver="heun", solver_steps=2, device="cpu")
    other = load_run("pretrained:tuned-seed0", solver="heun", solver_steps=2, device="cpu")
    x, t = torch.zeros(1, 3, 32, 32), torch.tensor([500])
    with torch.no_grad():
        torch.testing.assert_close(one.model(x, t), other.model(x, t), rtol=0, atol=0)


def test_weights_that_are_not_those_of_the_package_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SHA-256 is looked at whenever such a run is loaded."""
    here = tmp_path / "trained"
    shutil.copytree(trained_run("unet"), here / "unet-seed0")
    shutil.copy(trained_run("unet").parent / "SHA256SUMS", here)
    monkeypatch.setattr(trained, "_HERE", here)
    monkeypatch.setattr(trained, "_SUMS", here / "SHA256SUMS")
    trained.trained_run("unet")
    load_run("pretrained:unet", device="cpu")
    other = (here.parent / "other.safetensors", here / "unet-seed0" / "ema.safetensors")
    shutil.copy(other[1], other[0])
    with other[1].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00" if other[0].read_bytes()[-1:] != b"\x00" else b"\x01")
    with pytest.raises(CheckpointError, match="its SHA-256 is another"):
        load_run("pretrained:unet", device="cpu")


def test_every_run_has_a_checksum() -> None:
    for name in trained_runs():
        assert trained.is_whole(trained_run(name))


def test_what_is_made_of_a_run_goes_beside_it_but_for_those_of_the_package(tmp_path: Path) -> None:
    assert RunDirectory(tmp_path).outputs == tmp_path
    assert RunDirectory(tmp_path).title == str(tmp_path)
    run = RunDirectory(trained_run("unet"))
    assert run.title == "pretrained:unet-seed0"
    assert run.outputs == Path("runs/pretrained-unet-seed0")


def test_a_run_begins_with_pretrained_weights(tmp_path: Path) -> None:
    config = TrainConfig(
        model="unet", prediction="v", init_from="pretrained:unet", image_size=8, batch_size=2,
        data=f"folder:{draw_images(tmp_path / 'images', 2)}", max_steps=1, samples=0, device="cpu",
        lr=1e-9, weight_decay=0.0, output=str(tmp_path / "run"),
    )  # fmt: skip
    assert "pretrained-unet" in config.run_name
    run = train(config, reporter=Reporter())
    assert load_config(run).init_from == "pretrained:unet-seed0"
    ours, theirs = load_run(run, device="cpu"), load_run("pretrained:unet", device="cpu")
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
