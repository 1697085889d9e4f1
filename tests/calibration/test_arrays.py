"""Arrays of calibration are written whole, and read from any number of threads."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from isotone.calibration.arrays import load_array, write_array

N_THREADS, N_READS = 4, 200


def test_an_array_comes_back_as_it_was_written(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_array(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(load_array(tmp_path / "a.npy"), array)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_python_objects_are_not_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        load_array(tmp_path / "a.npy")


@pytest.fixture
def threads_take_turns():
    """Garbage collection comes often, and lets other threads run, also within NumPy's parsing."""
    threshold, yielding = gc.get_threshold(), lambda *_: time.sleep(0)
    gc.callbacks.append(yielding)
    gc.set_threshold(20)
    yield
    gc.set_threshold(*threshold)
    gc.callbacks.remove(yielding)


@pytest.mark.usefixtures("threads_take_turns")
def test_many_threads_read_at_once(tmp_path):
    """CPython 3.11 parses literals in one thread at a time only: gh-106905 raises SystemError."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_array(tmp_path / "a.npy", array)

    def read(_):
        return all((load_array(tmp_path / "a.npy") == array).all() for _ in range(N_READS))

    with ThreadPoolExecutor(N_THREADS) as pool:
        assert all(pool.map(read, range(N_THREADS)))
