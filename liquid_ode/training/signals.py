"""The signals that stop a run, or have it saved."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

_STOP = ("SIGINT", "SIGTERM", "SIGHUP")  # the last when a terminal closes or a connection breaks
_SAVE = ("SIGUSR1",)  # what queues send some minutes before they end a job


class Requests:
    """While entered, notes requests: SIGINT, SIGTERM or SIGHUP in ``stop``, SIGUSR1 in ``save``.

    A second signal to stop acts at once. SIGHUP stays ignored where it is (under nohup). Handlers
    can only be set in the main thread; in any other this notes nothing. The handlers that were
    there before come back at the end.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        self.save = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Requests:
        if threading.current_thread() is threading.main_thread():
            for names, note in ((_STOP, self._note_stop), (_SAVE, self._note_save)):
                for signum in (getattr(signal, name, None) for name in names):
                    if signum is not None and not _ignored_hangup(signum):
                        self._previous[signum] = signal.signal(signum, note)
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _note_stop(self, signum: int, frame: FrameType | None) -> None:
        if self.stop is not None:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.stop = signum

    def _note_save(self, signum: int, frame: FrameType | None) -> None:
        self.save = True


def _ignored_hangup(signum: signal.Signals) -> bool:
    return signum.name == "SIGHUP" and signal.getsignal(signum) == signal.SIG_IGN
