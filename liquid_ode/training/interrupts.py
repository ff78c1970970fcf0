"""Stopping between two steps when SIGINT or SIGTERM comes."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class StopRequests:
    """While entered, notes the first SIGINT or SIGTERM in ``signum``; the second acts at once.

    Handlers can only be set in the main thread; in any other this notes nothing. The handlers
    that were there before come back at the end.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.signum = signum
