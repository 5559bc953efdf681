"""The C library's memory: large arrays that were freed are kept for the next ones instead of going back to the system."""

from __future__ import annotations

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_FROM_HEAP = 2**25
"""Bytes; glibc allows no more."""
KEPT_BYTES = 2**28
"""Free memory that a process keeps at most."""


@cache
def keep_freed_memory() -> bool:
    """Ask for it, once in a process; False where the C library has no such setting (nothing is lost then but time).

    By default glibc maps every array of some hundred kilobytes anew and zeroes it page by page. Decoding range images makes
    hundreds of such arrays a second, and a fifth to a quarter of the time of preprocessing went there.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(set_option(_M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)) and bool(set_option(_M_TRIM_THRESHOLD, KEPT_BYTES))
