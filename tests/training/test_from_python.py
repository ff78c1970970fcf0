"""Images, models, solvers and callbacks that are objects of Python."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from liquid_ode.training import Interrupted, Moment, Reporter, TrainConfig, load_run, train
from liquid_ode.training.cli import main
from solvers import Midpoint
from tests.training.tiny import Stopper, lines, to, weights


class Squares(Dataset[tuple[Tensor, int]]):
    classes = ("dark", "bright")

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= len(self):
            raise IndexError
        image = torch.full((3, 8, 8), 12 * index, dtype=torch.uint8)
        return image, index // 10


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x) * (1 + t.float().view(-1, 1, 1, 1) / 1000)


@pytest.fixture
def plain(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, data="cifar10", model_options={}, epochs=2)


def test_a_dataset_a_model_and_a_resume_with_the_same(plain: TrainConfig, tmp_path: Path) -> None:
    net = Net()
    run = train(plain, dataset=Squares(), model=net, reporter=Reporter())
    record = json.loads((run / "config.json").read_text())
    assert record["config"]["data"] == "python:Squares"
    assert record["config"]["model"] == "python:Net"
    assert record["objects"] == {
        "dataset": f"{__name__}.Squares", "model": f"{__name__}.Net",
    }  # fmt: skip
    assert record["data"]["images"] == 20
    with pytest.raises(Interrupted):
        train(to(plain, tmp_path / "cut"), dataset=Squares(), model=Net(), reporter=Stopper(3))
    again: Any = {"resume": tmp_path / "cut", "reporter": Reporter()}
    with pytest.raises(ValueError, match=r"data 'python:Squares', an object .*dataset=\.\.\."):
        train(**again)
    with pytest.raises(ValueError, match=r"model 'python:Net', an object .*model=\.\.\."):
        train(**again, dataset=Squares())
    assert weights(train(**again, dataset=Squares(), model=Net())) == weights(run)
    # The model is trained in place, and its weights load into another of its kind.
    with pytest.raises(ValueError, match="no effect on a model that is given"):
        load_run(run, model=Net(), solver_steps=3)
    loaded = load_run(run, model=Net(), weights="model", device="cpu").model
    for a, b in zip(loaded.parameters(), net.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="model 'python:Net', an object"):
        load_run(run)


def test_the_command_line_says_that_an_object_is_needed(
    plain: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(
        dataclasses.replace(plain, max_steps=1, samples=0),
        dataset=Squares(), model=Net(), reporter=Reporter(),
    )  # fmt: skip
    assert main(["--resume", str(run)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "give it again" in err


def test_a_solver(config: TrainConfig) -> None:
    config = dataclasses.replace(config, samples=0, max_steps=2)
    run = train(config, solver=Midpoint(), reporter=Reporter())
    assert json.loads((run / "config.json").read_text())["objects"]["solver"] == repr(Midpoint())
    named = to(config, run.with_name("named"), solver="midpoint")
    assert weights(train(named, reporter=Reporter())) == weights(run)
    with pytest.raises(ValueError, match="solver 'python:Midpoint', an object"):
        load_run(run)
    assert load_run(run, solver=Midpoint(), device="cpu").num_classes is None


def test_labels_of_a_dataset(config: TrainConfig) -> None:
    config = dataclasses.replace(config, samples=0, max_steps=1, class_conditional=True)
    run = train(config, dataset=Squares(), reporter=Reporter())
    assert load_run(run, device="cpu").num_classes == 2


def test_what_would_have_no_effect_is_refused(plain: TrainConfig) -> None:
    for settings, objects, message in (
        ({"model_options": {"channels": 8}}, {"model": Net()}, "model_options .* have no effect"),
        ({"solver_options": {"cap": 3.0}}, {"solver": Midpoint()}, "solver_options .* no effect"),
        ({}, {"model": Net(), "solver": Midpoint()}, "solver has no effect on a model"),
        ({}, {"model": lambda x, t: x}, "model must be a torch.nn.Module"),
        ({}, {"solver": "midpoint"}, "solver must be a solver"),
        ({"class_conditional": True}, {"model": Net()}, "has num_classes None, and the data has 2"),
    ):
        with pytest.raises(ValueError, match=message):
            train(
                dataclasses.replace(plain, **settings),
                dataset=Squares(), reporter=Reporter(), **objects,
            )  # fmt: skip


def test_callbacks_are_told_of_every_moment(config: TrainConfig) -> None:
    class Record(Reporter):
        def __init__(self) -> None:
            self.seen: list[tuple[str, int]] = []
            self.records: list[float] = []

        def start(self, facts: Any, moment: Moment) -> None:
            assert moment.diffusion.training
            assert not moment.averaged.training
            self.seen.append(("start", moment.step))

        def step(self, moment: Moment) -> None:
            self.seen.append(("step", moment.step))

        def checkpoint(self, moment: Moment, path: Path) -> None:
            assert path.is_file()
            self.seen.append(("checkpoint", moment.step))

        def epoch(self, moment: Moment) -> None:
            assert moment.total_steps == 12
            self.seen.append(("epoch", moment.epoch))

        def metrics(self, record: Any) -> None:
            self.records.append(record["loss"])

        def close(self) -> None:
            self.seen.append(("close", 0))

    config = dataclasses.replace(config, checkpoint_every=4)
    one, other = Record(), Record()
    run = train(config, reporter=Reporter(), callbacks=[one, other])
    expected = [("start", 0)]
    for step in range(1, 13):
        expected.append(("step", step))
        if step in (4, 6, 8, 12):
            expected.append(("checkpoint", step))
        if step in (6, 12):
            expected.append(("epoch", step // 6))
    assert one.seen == other.seen == [*expected, ("close", 0)]
    assert one.records == [line["loss"] for line in lines(run)]


def test_a_callback_ends_a_run_by_an_exception_of_its_own(config: TrainConfig) -> None:
    class EnoughError(Exception):
        pass

    class Early(Reporter):
        def epoch(self, moment: Moment) -> None:
            raise EnoughError

    with pytest.raises(EnoughError):
        train(config, reporter=Reporter(), callbacks=[Early()])
    assert lines(Path(str(config.output)))[-1]["step"] == 6
    assert train(resume=str(config.output), reporter=Reporter())
    assert lines(Path(str(config.output)))[-1]["step"] == 12
