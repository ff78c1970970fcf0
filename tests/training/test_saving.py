"""When a run is saved: on signals, by the clock, and for good."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from liquid_ode.training import Interrupted, Moment, Reporter, TrainConfig, train
from liquid_ode.training.checkpoint import read_tensors
from liquid_ode.training.signals import Requests
from tests.training.tiny import Stopper, to, weights


@pytest.fixture
def hangups() -> Iterator[None]:
    """A hang-up acts, also where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def saved_steps(run: Path) -> list[int]:
    return [
        read_tensors(path, "checkpoint")[0]["progress"]["step"]
        for path in sorted((run / "snapshots").iterdir())
    ]


@pytest.mark.usefixtures("hangups")
def test_the_first_signal_is_noted_and_the_handlers_come_back() -> None:
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(name) for name in names]
    for signum in names[:3]:
        with Requests() as requests:
            assert requests.stop is None
            os.kill(os.getpid(), signum)
            assert requests.stop == signum
            assert not requests.save
    with Requests() as requests:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert (requests.stop, requests.save) == (None, True)
    assert [signal.getsignal(name) for name in names] == before


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with Requests() as requests:
            os.kill(os.getpid(), signal.SIGHUP)
            assert requests.stop is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_no_handlers_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with Requests():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.usefixtures("hangups")
def test_a_hangup_saves_and_stops(config: TrainConfig, tmp_path: Path) -> None:
    whole = train(config, reporter=Reporter())
    with pytest.raises(Interrupted) as caught:
        train(to(config, tmp_path / "cut"), reporter=Stopper(5, signal.SIGHUP))
    assert caught.value.code == 128 + signal.SIGHUP
    assert weights(train(resume=tmp_path / "cut", reporter=Reporter())) == weights(whole)


def test_sigusr1_saves_and_goes_on(config: TrainConfig, tmp_path: Path) -> None:
    class Look(Stopper):
        def step(self, moment: Moment) -> None:
            if moment.step == self.at + 1:
                header, _ = read_tensors(tmp_path / "run" / "checkpoint.safetensors", "checkpoint")
                self.notes.append(f"found {header['progress']['step']}")
            super().step(moment)

    listener = Look(3, signal.SIGUSR1)
    run = train(config, reporter=listener)
    assert "saved at step 3 of 12" in listener.notes
    assert "found 3" in listener.notes
    assert weights(run) == weights(train(to(config, tmp_path / "other"), reporter=Reporter()))


def test_the_clock_saves(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    real = "liquid_ode.training.state.RunState.save"

    def save(self: object, *_: object) -> None:
        saved.append(self.progress.step)  # type: ignore[attr-defined]

    monkeypatch.setattr(real, save)
    train(dataclasses.replace(config, checkpoint_minutes=1e-9, samples=0), reporter=Reporter())
    assert saved == list(range(1, 13))


def test_snapshots_are_kept_and_are_checkpoints(config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, snapshot_every=5, samples=0)
    run = train(config, reporter=Reporter())
    assert [path.name for path in sorted((run / "snapshots").iterdir())] == [
        "step_0000005.safetensors",
        "step_0000010.safetensors",
    ]
    assert saved_steps(run) == [5, 10]
    before = weights(run)
    (run / "checkpoint.safetensors").write_bytes(
        (run / "snapshots" / "step_0000005.safetensors").read_bytes()
    )
    assert weights(train(resume=run, reporter=Reporter())) == before
