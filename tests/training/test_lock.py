"""One process at a time in a run directory; a dead one's lock is no obstacle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from liquid_ode.training import InUseError, Reporter, TrainConfig, train
from liquid_ode.training.lock import NAME, locked

HOLD = (
    "import sys, pathlib\n"
    "from liquid_ode.training.lock import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


def hold(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_run_in_use_is_refused_and_names_the_process(config: TrainConfig, tmp_path: Path) -> None:
    with hold(tmp_path / "run") as process:
        with pytest.raises(InUseError) as caught:
            train(config, reporter=Reporter())
        process.communicate("")
    assert re.search(
        rf"run is in use by process {process.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d",
        str(caught.value),
    )
    assert not (tmp_path / "run" / "config.json").exists()
    run = train(config, reporter=Reporter())  # it has gone
    with hold(run) as process:
        with pytest.raises(InUseError, match=f"process {process.pid} "):
            train(resume=run, reporter=Reporter())
        process.communicate("")


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / NAME).exists()
    with locked(tmp_path) as held:
        assert held
        assert f"process {os.getpid()} " in (tmp_path / NAME).read_text()
    assert not (tmp_path / NAME).exists()


def test_two_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    inside, most, errors = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, errors
        for _ in range(200):
            try:
                with locked(tmp_path):
                    inside += 1
                    most = max(most, inside)
                    inside -= 1
            except InUseError:
                errors += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not (tmp_path / NAME).exists()
    with locked(tmp_path), pytest.raises(InUseError), locked(tmp_path):
        pass


def test_a_system_without_locks_says_so(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener(Reporter):
        notes: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.notes.append(text)

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    train(config, reporter=Listener())
    assert any("cannot be locked here" in note for note in Listener.notes)
