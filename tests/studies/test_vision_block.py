"""examples/studies/vision_block.py on images whose classes are colours."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import solvers
from liquid_ode.data import ImageSet
from studies import vision_block, vision_plots
from tests.runs import check_refusal, on_one_thread

CLASSES = ("red", "green", "blue")
TINY = ["--channels", "4", "--batch-size", "16", "--device", "cpu"]


def colours(count: int, seed: int) -> ImageSet:
    """Images of one colour each, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    images = torch.randint(0, 160, (count, 3, 32, 32), generator=generator)
    images[torch.arange(count), labels] += 90
    return ImageSet(images.to(torch.uint8), labels, CLASSES)


one_thread = pytest.fixture(autouse=True, scope="module")(on_one_thread)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    def load(root: str | None, *, split: str) -> ImageSet:
        assert root == "somewhere"
        return colours(96, 0) if split == "train" else colours(30, 1)

    monkeypatch.setattr(vision_block, "load_cifar10", load)
    return vision_block


def run(script: ModuleType, output: Path, *more: str) -> int:
    words = [*TINY, "--data-root", "somewhere", "-o", str(output), *more]
    return script.main(words)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.mark.parametrize("block", ["liquid", "residual"])
def test_it_learns_and_writes_what_it_says(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], block: str
) -> None:
    more = ["--epochs", "2", "--batch-size", "8", "--lr", "0.01"]
    assert run(script, tmp_path, "--block", block, *more) == 0
    out, err = capsys.readouterr()
    assert err == ""
    name = {"liquid": "liquid-euler-seed0", "residual": "residual-seed0"}[block]
    record = read(tmp_path / f"{name}.json")
    assert record["name"] == name
    assert [line for line in out.splitlines() if line.startswith("epoch")][-1].startswith(
        f"epoch  2/2  train loss {record['epochs'][-1]['train_loss']:.3f}  test accuracy "
    )
    assert len(record["epochs"]) == 2
    assert record["epochs"][-1]["train_loss"] < 0.5 * record["epochs"][0]["train_loss"]
    assert record["epochs"][-1]["test_accuracy"] > 0.9
    assert record["settings"]["block"] == block
    assert {"torch", "threads", "processor"} <= set(record["environment"])
    assert f"{name}: {record['parameters']:,} parameters" in out
    with Image.open(tmp_path / "accuracy.png") as picture:
        assert picture.format == "PNG"
    assert (tmp_path / f"{name}-tau.png").exists() == (block == "liquid")

    block_class = script.ResidualBlock
    if block == "liquid":
        solver = solvers.get("euler", steps=record["settings"]["solver_steps"])
        block_class = lambda channels: script.LiquidBlock(channels, solver)  # noqa: E731
    model = script.Classifier(block_class, 4, 10)
    model.load_state_dict(load_file(tmp_path / f"{name}.safetensors"))
    assert sum(p.numel() for p in model.parameters()) == record["parameters"]
    measured = script.accuracy(model, colours(30, 1), torch.device("cpu"), "no")
    assert measured == record["epochs"][-1]["test_accuracy"]


def test_the_same_seed_gives_the_same_weights(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "draw", lambda *_: None)
    found = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ["--epochs", "1", "--batch-size", "32", "--seed", str(seed)]
        assert run(script, tmp_path / folder, *words) == 0
        weights = load_file(tmp_path / folder / f"liquid-euler-seed{seed}.safetensors")
        found.append(weights["stages.0.cell.recurrent"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_liquid_and_residual_blocks_have_as_many_parameters(script: ModuleType) -> None:
    solver = solvers.get("euler")
    models = [
        script.Classifier(lambda channels: script.LiquidBlock(channels, solver), 32, 10),
        script.Classifier(script.ResidualBlock, 32, 10),
    ]
    liquid, residual = (sum(p.numel() for p in model.parameters()) for model in models)
    assert liquid == pytest.approx(residual, rel=0.03)


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["--solver", "exponential_euler"], 3),
        (["--solver", "heun", "--solver-steps", "2"], 2),
        (["--solver", "torchdiffeq:midpoint"], 3),
        (["--solver", "dormand_prince"], None),
    ],
)
def test_solvers_by_name(script: ModuleType, words: list[str], steps: int | None) -> None:
    options = script.make_parser().parse_args(words)
    block, name = script.choose_block(options)
    solver = block(4).cell.solver
    given = {} if steps is None else {"steps": steps}
    assert solver == solvers.get(words[1], **given)
    assert name == f"liquid-{words[1].replace(':', '-')}-seed0"


def test_an_interrupt_keeps_the_epochs_before_it(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crop, calls = script.random_crop, 0

    def interrupted(images: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 10:  # of 6 in an epoch
            raise KeyboardInterrupt
        return crop(images, generator)

    monkeypatch.setattr(script, "random_crop", interrupted)
    assert run(script, tmp_path, "--epochs", "3") == 130
    assert f"1 of 3 epochs is kept in {tmp_path}" in capsys.readouterr().out
    assert len(read(tmp_path / "liquid-euler-seed0.json")["epochs"]) == 1
    assert (tmp_path / "liquid-euler-seed0.safetensors").exists()
    assert (tmp_path / "accuracy.png").exists()


def test_all_runs_of_a_directory_are_compared(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr(
        script.plots, "plot_accuracy", lambda curves, path: drawn.append(list(curves))
    )
    (tmp_path / "foreign.json").write_text('{"name": "no run"}')
    (tmp_path / "broken.json").write_text("{")
    assert run(script, tmp_path, "--block", "residual", "--epochs", "1") == 0
    assert run(script, tmp_path, "--solver", "uniform_euler", "--epochs", "1") == 0
    assert [len(labels) for labels in drawn] == [1, 2]
    assert drawn[1][0].startswith("liquid-uniform_euler-seed0, ")


def test_crops_are_shifts_by_up_to_four_pixels(script: ModuleType) -> None:
    images = torch.arange(1.0, 1 + 3 * 32 * 32).view(1, 3, 32, 32).repeat(200, 1, 1, 1)
    cropped = script.random_crop(images, torch.Generator().manual_seed(0))
    assert cropped.shape == images.shape
    assert cropped.is_contiguous(memory_format=torch.channels_last)
    shifts = set()
    for image in cropped:
        top = int((image[0] != 0).any(1).nonzero()[0])
        below = 32 - int((image[0] != 0).any(1).sum()) - top
        left = int((image[0] != 0).any(0).nonzero()[0])
        right = 32 - int((image[0] != 0).any(0).sum()) - left
        assert min(top, below) == min(left, right) == 0
        kept = images[0, :, below : 32 - top, right : 32 - left]
        assert torch.equal(image[:, top : 32 - below, left : 32 - right], kept)
        shifts.add((top - below, left - right))
    assert {shift for shift, _ in shifts} == {shift for _, shift in shifts} == set(range(-4, 5))
    assert len(shifts) > 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, not 0"),
        (["--batch-size", "-1"], "--batch-size must be at least 1"),
        (["--batch-size", "97"], "the data has 96 images, fewer than the 97"),
        (["--channels", "0"], "--channels must be at least 1"),
        (["--lr", "nan"], "--lr must be a positive number, not nan"),
        (["--solver", "magic"], "unknown solver 'magic'"),
        (["--solver-steps", "0"], "steps must be a whole number of at least 1"),
        (["--solver", "dopri5", "--solver-steps", "3"], "takes no option 'steps'"),
        (["--block", "residual", "--solver", "euler"], "residual blocks have no solver"),
        (["-o", "FILE"], "cannot be made"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "file").write_text("")
    words = [str(tmp_path / "file") if word == "FILE" else word for word in arguments]
    status = run(script, tmp_path / "out", *words)
    check_refusal(status, capsys.readouterr().err, message)


def test_a_loss_that_is_lost_stops_the_run(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, tmp_path, "--block", "residual", "--epochs", "2", "--lr", "1e30") == 2
    assert "lower --lr" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_pictures_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no curve"):
        vision_plots.plot_accuracy({}, tmp_path / "a.png")
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match="must be of 2 images"):
        vision_plots.plot_time_constants(images, ["one"], [], tmp_path / "b.png")
