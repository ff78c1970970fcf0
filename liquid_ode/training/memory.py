"""Keeping freed memory, where the C library would hand it back at every step."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what glibc accepts


def keep_freed_memory() -> bool:
    """Let glibc's malloc reuse the blocks of one step for the next; whether it could be done.

    By default it maps and unmaps every block of a few MiB, and each new page costs a fault: on
    a CPU, a large part of a training step. It is a setting of the whole process, for good, and
    changes no result. Other C libraries are left alone.
    """
    try:
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "gnu_get_libc_version"):
            return False
        done = libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        return bool(done and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, TypeError, AttributeError):  # no C library by that name (Windows)
        return False
