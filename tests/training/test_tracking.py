"""The metrics of a run as TensorBoard reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from liquid_ode.training import Interrupted, Reporter, TrainConfig, train
from tests.training.tiny import Stopper, lines, weights


def test_a_resumed_run_is_one_curve(config: TrainConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    config = dataclasses.replace(config, samples=0, tensorboard=True, checkpoint_every=3)
    with pytest.raises(Interrupted):
        train(config, reporter=Stopper(7))
    run = train(resume=tmp_path / "run", reporter=Reporter())
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("loss")}
    assert found == pytest.approx({line["step"]: line["loss"] for line in lines(run)})
    assert {event.step for event in events.Scalars("loss of the epoch")} == {6, 12}
    assert weights(run)


def test_without_the_package_the_remedy_is_told_and_nothing_is_made(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.utils.is_tensorboard_available", lambda: False)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        train(dataclasses.replace(config, tensorboard=True), reporter=Reporter())
    assert not (tmp_path / "run").exists()
