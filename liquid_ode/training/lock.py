"""One process at a time in a run directory.

The lock is the operating system's, on a file ``.lock`` in the directory: it is gone with the
process that held it, however that ended, so a file that a killed process left is no obstacle.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = ".lock"


class InUseError(ValueError):
    """Another process trains in the run directory."""


@contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Within the block ``directory`` is this block's alone; it is made where it is missing.

    Yields:
        Whether it could be locked: False on a system or a file system that has no locks.

    Raises:
        InUseError: it is another's, in this process or in another one; the message names the
            process and since when.
        OSError: the directory could not be made, or not written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    handle, held = _take(path)
    try:
        os.ftruncate(handle, 0)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
        yield held
    finally:
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(handle)
            with suppress(OSError):
                path.unlink()
        else:  # removed while it is held: who opened it before sees that it is no longer there
            with suppress(OSError):
                path.unlink()
            os.close(handle)


def _take(path: Path) -> tuple[int, bool]:
    """An open file at ``path`` that nobody else has locked, and whether it is locked now."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            held = _lock(handle)
        except BlockingIOError as error:
            holder = _holder(path)
            os.close(handle)
            raise InUseError(
                f"{path.parent} is in use by {holder}: wait until it ends, or stop it first"
            ) from error
        except BaseException:
            os.close(handle)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle, held
        os.close(handle)  # its last holder removed it after it was opened here: make a new one


def _lock(handle: int) -> bool:
    """Lock an open file; whether this system can.

    Raises:
        BlockingIOError: another has locked it.
    """
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 2**30, os.SEEK_SET)  # far behind the text, which others are to read
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return False
    return True


def _holder(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        if text := path.read_text().strip():
            return text
    return "another process"
