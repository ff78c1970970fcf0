"""The first steps with the cells: a circuit learns a sine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.runs import load_script, on_one_thread

one_thread = pytest.fixture(autouse=True)(on_one_thread)


@pytest.mark.parametrize(
    ("cell", "epochs", "left"), [("LTCCell", 12, 0.9), ("WiredCfCCell", 30, 0.2)]
)
def test_it_learns(
    cell: str, epochs: int, left: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sine has a mean square of 1/2; after 400 epochs 5e-5 is left."""
    output = tmp_path / "made" / "sine.png"
    arguments = ["--cell", cell, "--epochs", str(epochs), "--output", str(output)]
    assert load_script("fit_sine").main(arguments) == 0
    found = re.search(r"error (\S+) before training, (\S+) after", capsys.readouterr().out)
    assert found is not None
    before, after = map(float, found.groups())
    assert 0.3 < before < 1.0
    assert after < left * before
    assert output.read_bytes().startswith(b"\x89PNG")
