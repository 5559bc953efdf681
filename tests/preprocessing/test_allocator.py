"""Asking the C library to keep memory changes where memory comes from, and nothing else."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from preprocessing import allocator
from preprocessing.allocator import keep_freed_memory


def test_arrays_work_as_before_and_asking_twice_is_fine() -> None:
    assert keep_freed_memory() == keep_freed_memory()
    for size in (2**10, 2**18, 2**23):
        array = np.arange(size)
        assert int(array[-1]) == size - 1


def test_a_c_library_without_the_setting_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, name: None) -> None:
            pass

    keep_freed_memory.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert not allocator.keep_freed_memory()
    keep_freed_memory.cache_clear()
