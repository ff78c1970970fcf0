"""The table of runs that differ in their seed alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from liquid_ode.training import TrainConfig
from studies import over_seeds


def measured(path: Path, loss: float, fd: float, **settings: Any) -> Path:
    """A run directory as examples/evaluate.py leaves it, but for the weights."""
    path.mkdir()
    config = TrainConfig(**settings).to_dict()
    whole = {"format_version": 1, "config": config, "data": {"num_classes": 10}}
    (path / "config.json").write_text(json.dumps(whole))
    record = {
        "title": "FD-cnn", "parameters": 1234, "images": {"n": 500, "fd": fd},
        "loss": {"mean": loss}, "environment": {},
    }  # fmt: skip
    (path / "evaluation-mine.json").write_text(json.dumps(record))
    return path


def test_seeds_are_put_together_and_settings_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        measured(tmp_path / "a", 0.1, 4.0, seed=0),
        measured(tmp_path / "b", 0.3, 8.0, seed=1, output="elsewhere", threads=1),
        measured(tmp_path / "c", 0.2, 5.0, seed=0, lr=0.5),
        tmp_path / "no run",
    ]
    assert over_seeds.main([*map(str, runs), "--record", "mine"]) == 0
    head, both, alone = capsys.readouterr().out.splitlines()
    assert "FD-cnn, n = 500" in head
    cells = ["2", "1,234", "0.2000", "0.1000-0.3000", "6.00", "4.00-8.00"]
    assert both.split()[-6:] == cells
    assert both.startswith("improved, lr=0.0002")
    assert alone.split()[:3] == ["improved,", "lr=0.5", "1"]


def test_runs_that_were_not_measured_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert over_seeds.main([str(tmp_path)]) == 2
    assert "none of the runs has evaluation-" in capsys.readouterr().err
