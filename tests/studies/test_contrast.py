"""The study of contrast: what it refuses before it samples, and its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from liquid_ode.evaluation.pixels import PixelStatistics
from liquid_ode.evaluation.scores import Distance, Scores
from liquid_ode.training import Reporter, train
from studies import contrast
from tests.runs import check_refusal, draw_images, small_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = small_config(draw_images(folder / "images", 2), folder / "run", samples=0)
    return train(config, reporter=Reporter())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "50"], "-n must be more than"),
        (["--settings", "--steps 5 --what 3"], "'--steps 5 --what 3' has unknown options: --what"),
        (["--settings", "--eta 1", "--churn 3"], "--churn has no effect with --sampler ddim"),
        (["--settings", "--steps 2"], "name a folder of other images"),
    ],
)
def test_refusals(
    run: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    status = contrast.main([str(run), "--device", "cpu", *options])
    check_refusal(status, capsys.readouterr().err, message)


def test_contrast_is_ok_within_a_tenth_and_twice_the_saturation() -> None:
    data = PixelStatistics(std=0.5, saturated=0.012)
    for std, saturated, ok in (
        (0.5, 0.0, True), (0.455, 0.023, True), (0.44, 0.0, False), (0.56, 0.0, False),
        (0.5, 0.025, False),
    ):  # fmt: skip
        distance = Distance(n=300, fd=1.0, kid=0.1, kid_std=0.0)
        pixels = PixelStatistics(std, saturated)
        scores = Scores("FD-cnn", distance, None, pixels, data, 10)
        row = contrast._row("--eta 1", scores, 50.0, data)
        assert row["ok"] is ok
