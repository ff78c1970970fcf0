"""A run of the liquid U-Net on the command line: its steps, warm starts and early stops."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from liquid_ode.training import Reporter, load_run, train
from tests.runs import check_refusal, draw_images, load_script, small_config

FEW = ["-n", "2", "--steps", "2", "--device", "cpu", "--precision", "no"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("sample")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = draw_images(tmp_path_factory.mktemp("images"), 4)
    config = small_config(
        images, tmp_path_factory.mktemp("runs") / "run", model="liquid_unet",
        model_options={"widths": [8, 8], "steps": 4, "warm_share": 0.5}, lr=0.05, samples=0,
    )  # fmt: skip
    return train(config, reporter=Reporter())


def test_each_way_of_sampling_has_pictures_of_its_own(script: ModuleType, run: Path) -> None:
    ways = (
        [], ["--solver-steps", "1"], ["--solver-steps", "1", "3"], ["--warm-start"],
        ["--solver", "heun"], ["--depth-guidance", "2", "--early-steps", "2"],
    )  # fmt: skip
    for way in ways:
        assert script.main([str(run), *FEW, *way]) == 0
    grids = [path.read_bytes() for path in run.glob("samples*.png")]
    assert len(grids) == len(set(grids)) == len(ways)
    assert list(run.glob("samples*warm-*.png"))


def test_the_number_of_steps_of_a_loaded_run(run: Path) -> None:
    for given, expected in ((None, [4, 4]), (2, [2, 2]), ([1, 3], [1, 3])):
        model = load_run(run, solver_steps=given, device="cpu").model
        assert [group[0].steps for group in model.budgets()] == expected  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--solver-steps", "1", "2", "3"], "steps takes one number or 2, not (1, 2, 3)"),
        (["--depth-guidance", "2", "--early-steps", "5"], "after 1 to 4 of them, not after 5"),
    ],
)
def test_what_does_not_fit_the_model(
    script: ModuleType,
    run: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = script.main([str(run), *FEW, *arguments])
    check_refusal(status, capsys.readouterr().err, message)
