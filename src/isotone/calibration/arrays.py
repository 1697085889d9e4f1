"""The `.npy` files of calibration: written atomically, and read from any number of threads.

NumPy parses the header of a `.npy` file with `ast.literal_eval`, and CPython up to 3.11 raises
SystemError ("AST constructor recursion depth mismatch") where two threads do that at the same time
(https://github.com/python/cpython/issues/106905). All files are therefore opened under one lock;
their content is mapped, and read without it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.atomic import writing_atomically

_PARSING_HEADER = threading.Lock()


def load_array(path: Path) -> NDArray[Any]:
    """Map an array from its file; safe to call from several threads.

    Parameters
    ----------
    path : Path
        A `.npy` file.

    Returns
    -------
    array
        The array, read-only; its content is read from disk when it is used.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError, EOFError
        If it is not a whole `.npy` file, or holds Python objects.
    """
    with _PARSING_HEADER:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array atomically; other threads and processes may write the same file.

    Parameters
    ----------
    path : Path
        Where the `.npy` file will be.
    array : array
        Its content.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with writing_atomically(path, durable=False, unique=True) as file:
        np.save(file, array)
