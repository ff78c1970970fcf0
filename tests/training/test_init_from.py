"""A run that begins with the weights of another: what is kept, and what is new."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from liquid_ode.data import ImageSet
from liquid_ode.training import CheckpointError, Interrupted, Reporter, TrainConfig, load_run, train
from tests.training.tiny import Stopper, to, weights

KEY = "conditioning.classes.weight"


def labelled(names: tuple[str, ...], count: int = 12) -> ImageSet:
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % len(names), names)


class Start(Reporter):
    """Keeps the notes, and what the model says before the first step."""

    def __init__(self, labels: torch.Tensor | None = None) -> None:
        self.notes, self.labels, self.before = list[str](), labels, torch.empty(0)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, facts: Any, moment: Any) -> None:
        x, t = torch.linspace(-1, 1, 3 * 64).view(1, 3, 8, 8), torch.tensor([300])
        inputs = (x, t) if self.labels is None else (x, t, self.labels)
        with torch.no_grad():
            self.before = moment.diffusion.model(*inputs)


def answer(run: Path, *labels: torch.Tensor, which: str = "ema") -> torch.Tensor:
    x, t = torch.linspace(-1, 1, 3 * 64).view(1, 3, 8, 8), torch.tensor([300])
    with torch.no_grad():
        return load_run(run, device="cpu", weights=which).model(x, t, *labels)


def test_a_new_run_begins_where_the_other_ended(config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, samples=0, lr=5e-3)
    old = train(config, reporter=Reporter())
    for which in ("ema", "model"):
        listener = Start()
        run = train(
            to(config, tmp_path / which, init_from=str(old), init_weights=which, epochs=1, lr=1e-3),
            reporter=listener,
        )
        torch.testing.assert_close(listener.before, answer(old, which=which))
        assert f"begun with the weights {which} of {old}" in listener.notes
    record = json.loads((run / "config.json").read_text())
    assert record["initial"]["run"] == str(old)
    assert TrainConfig(init_from="/a/b-c").run_name == "improved-euler-from-b-c-seed0"


def test_it_resumes_bit_for_bit_without_the_other_run(config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, samples=0)
    old = train(config, reporter=Reporter())
    second = to(config, tmp_path / "second", init_from=str(old))
    whole = train(second, reporter=Reporter())
    with pytest.raises(Interrupted):
        train(to(second, tmp_path / "cut"), reporter=Stopper(1))
    shutil.rmtree(old)
    assert weights(train(resume=tmp_path / "cut", reporter=Reporter())) == weights(whole)


def test_classes_keep_their_embeddings_by_name(config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, samples=0, epochs=1, class_conditional=True)
    old = train(config, dataset=labelled(("cat", "dog", "eel")), reporter=Reporter())
    listener = Start(torch.tensor([1]))
    run = train(
        to(config, tmp_path / "wide", init_from=str(old), max_steps=1, lr=1e-12, weight_decay=0.0),
        dataset=labelled(("ant", "cat", "eel", "fox", "gnu")),
        reporter=listener,
    )
    before, after = (
        load_file(r / f"{n}.safetensors")[KEY] for r, n in ((old, "ema"), (run, "model"))
    )
    assert after.shape == (6, before.shape[1])
    expected = [3, 0, 2, 3, 3, 3]  # cat and eel keep theirs, no class (3) begins the new and ends
    torch.testing.assert_close(after, before[expected], rtol=0, atol=1e-6)
    torch.testing.assert_close(listener.before, answer(old, torch.tensor([0])))
    assert "new classes, which begin as no class: ant, fox, gnu" in listener.notes
    assert "classes left out: dog" in listener.notes


def test_classes_come_and_go(config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, samples=0, epochs=1)
    data = labelled(("cat", "dog"))
    plain = train(config, dataset=data, reporter=Reporter())
    listener = Start(torch.tensor([1]))
    with_classes = to(config, tmp_path / "with", init_from=str(plain), class_conditional=True)
    run = train(with_classes, dataset=data, reporter=listener)
    torch.testing.assert_close(listener.before, answer(plain))
    assert "the 2 classes are new" in listener.notes
    listener = Start()
    train(to(config, tmp_path / "without", init_from=str(run)), dataset=data, reporter=listener)
    torch.testing.assert_close(listener.before, answer(run, torch.tensor([2])))


def test_what_does_not_fit_is_refused_before_a_directory_is_made(
    config: TrainConfig, tmp_path: Path
) -> None:
    old = train(dataclasses.replace(config, samples=0, epochs=1), reporter=Reporter())
    for changes, message in (
        ({"prediction": "v"}, r"prediction \(expected 'v', found 'epsilon'\)"),
        ({"model_options": {**config.model_options, "channels": 16}}, "of another shape: "),
        ({"init_weights": "ema-0.05"}, "has no average 'ema-0.05', and too little to make it of"),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(to(config, tmp_path / "new", init_from=str(old), **changes), reporter=Reporter())
    with pytest.raises(CheckpointError, match="is not a run directory"):
        train(to(config, tmp_path / "new", init_from=str(tmp_path)), reporter=Reporter())
    assert not (tmp_path / "new").exists()
