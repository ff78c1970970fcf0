"""Runs to hand on: as good as the original, and silent about where it lay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from liquid_ode.training import CheckpointError, Reporter, load_run, share_run, train
from tests.runs import check_refusal, draw_images, load_script, small_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a_private_place")
    config = small_config(
        draw_images(root / "images", 4), root / "run", model="unet",
        model_options={"widths": [8, 8]}, lr=0.05, samples=2, sample_steps=2,
    )  # fmt: skip
    made = train(config, reporter=Reporter())
    evaluation = {"source": str(made), "neighbours": str(made / "n.png"), "images": {"fd": 3.0}}
    (made / "evaluation-x.json").write_text(json.dumps(evaluation))
    return made


def test_a_shared_run_draws_the_same_and_names_no_folder(run: Path, tmp_path: Path) -> None:
    shared = share_run(run, tmp_path / "shared")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    with torch.no_grad():
        mine, theirs = (load_run(each, device="cpu").model(x, t) for each in (run, shared))
    assert torch.equal(mine, theirs)
    for file in shared.rglob("*"):
        assert file.is_dir() or b"a_private_place" not in file.read_bytes(), file
    assert not (shared / "checkpoint.safetensors").exists()
    assert json.loads((shared / "evaluation-x.json").read_text())["images"] == {"fd": 3.0}
    assert (shared / "samples" / "epoch_0001.png").exists()
    assert (shared / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_other_weights(run: Path, tmp_path: Path) -> None:
    shared = share_run(run, tmp_path / "shared", weights=["model"])
    assert [file.name for file in shared.glob("*.safetensors")] == ["model.safetensors"]


def test_what_cannot_be_shared(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match="not a run directory"):
        share_run(tmp_path / "nothing", tmp_path / "shared")
    script = load_script("share_run")
    for arguments, message in (
        ([run, run], "already holds a run"),
        ([run, tmp_path / "x", "--weights", "ema-0.1"], "ema-0.1.safetensors"),
        ([run, tmp_path / "y", "--weights", "mean"], "weights must be"),
    ):
        status = script.main([str(each) for each in arguments])
        check_refusal(status, capsys.readouterr().err, message)
