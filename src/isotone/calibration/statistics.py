"""A directory of statistics for calibration, as `collect` writes it.

    text.npy             [windows, context] int64, the tokens that ran through the model
    inputs-NNNN.npy      [2, columns, columns] float32, the second moments of an input: over the
                         windows that matrices are clustered by, and over the held-out windows
    outputs-NNNN.npy     [rows] float32, the mean squared gradients of an output
    ordered-NNNN-R.npy   the inverse-Hessian factor of a matrix, computed when it is first used
    statistics.json      which of these files belong to which tensor; written last

Writes are atomic, so every file in the directory is whole.
"""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.calibration.arrays import load_array
from isotone.checkpoint.files.atomic import write_atomically
from isotone.core.calibrated.sensitivity import Sensitivity
from isotone.errors import FormatError

INDEX_FILE = "statistics.json"
"""The index of a directory of statistics. A directory without it is unfinished."""

SELF = "self"
"""Given in the place of a text: calibrate by text that the model generates itself."""

_VERSION = 1


@dataclass(frozen=True)
class StatisticsEntry:
    """Which files hold the statistics of one matrix. The names of the fields are stored.

    Attributes
    ----------
    tensor : str
        The name of the tensor in the checkpoint.
    matrix : int
        The position of the matrix in a stack; 0 for a tensor that is not a stack.
    inputs : int
        The number of the file of its input's second moments.
    outputs : int
        The number of the file of its output's squared gradients.
    first_row : int
        The position of its first row in that file, which may hold several matrices.
    n_tokens, n_held_out : int
        The number of inputs that the second moments are means of, in the windows for clustering
        and in the held-out windows.
    """

    tensor: str
    matrix: int
    inputs: int
    outputs: int
    first_row: int
    n_tokens: int
    n_held_out: int


class Statistics:
    """Reads a directory of statistics. Safe to use from several threads.

    Parameters
    ----------
    directory : Path
        The directory.
    about : dict
        The model and the text that the statistics belong to.
    entries : list of StatisticsEntry
        The matrices that the directory knows.
    """

    def __init__(
        self, directory: Path, about: dict[str, Any], entries: list[StatisticsEntry]
    ) -> None:
        self.directory, self.about = directory, about
        self._entries = {(entry.tensor, entry.matrix): entry for entry in entries}

    @classmethod
    def open(cls, directory: Path) -> Statistics:
        """Open a directory by its index.

        Parameters
        ----------
        directory : Path
            What `collect` wrote.

        Returns
        -------
        Statistics
            The directory, opened.

        Raises
        ------
        FormatError
            If it has no readable index, or was written by another version of isotone.
        """
        path = directory / INDEX_FILE
        try:
            body = json.loads(path.read_text("utf-8"))
            if body["version"] != _VERSION:
                raise ValueError(f"version {body['version']}")
            entries = [StatisticsEntry(**each) for each in body["matrices"]]
            return cls(directory, body["about"], entries)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path}: is no record of statistics ({error})") from error

    @property
    def matrices(self) -> Set[tuple[str, int]]:
        """The tensors that have statistics, by name, and the positions of the matrices in them."""
        return self._entries.keys()

    def sensitivity(self, tensor: str, matrix: int, n_rows: int) -> Sensitivity | None:
        """Read what errors in a matrix cost, by the windows that matrices are clustered by.

        Parameters
        ----------
        tensor : str
            The name of the tensor.
        matrix : int
            The position of the matrix in a stack, or 0.
        n_rows : int
            The number of its rows.

        Returns
        -------
        Sensitivity or None
            None for a matrix without statistics.

        Raises
        ------
        FormatError
            If a file is damaged, or does not fit the matrix.
        """
        return self._read(tensor, matrix, n_rows, held_out=False)

    def held_out(self, tensor: str, matrix: int, n_rows: int) -> Sensitivity | None:
        """Read what errors in a matrix cost, by the held-out windows.

        Parameters
        ----------
        tensor : str
            The name of the tensor.
        matrix : int
            The position of the matrix in a stack, or 0.
        n_rows : int
            The number of its rows.

        Returns
        -------
        Sensitivity or None
            None for a matrix without statistics.

        Raises
        ------
        FormatError
            If a file is damaged, or does not fit the matrix.
        """
        return self._read(tensor, matrix, n_rows, held_out=True)

    def factor_file(self, tensor: str, matrix: int) -> Path:
        """Return where the inverse-Hessian factor of a matrix is kept.

        Parameters
        ----------
        tensor : str
            The name of a tensor that has statistics.
        matrix : int
            The position of the matrix in a stack, or 0.

        Returns
        -------
        Path
            The file; it need not exist.
        """
        entry = self._entries[tensor, matrix]
        return self.directory / f"ordered-{entry.outputs:04}-{entry.first_row}.npy"

    def _read(self, tensor: str, matrix: int, n_rows: int, *, held_out: bool) -> Sensitivity | None:
        entry = self._entries.get((tensor, matrix))
        if entry is None:
            return None
        moments = _load(inputs_file(self.directory, entry.inputs), 3)
        outputs = _load(outputs_file(self.directory, entry.outputs), 1)
        last_row = entry.first_row + n_rows
        if moments.shape != (2, *moments.shape[1:2] * 2) or len(outputs) < last_row:
            raise FormatError(
                f"{self.directory}: the statistics of {tensor} have shapes {moments.shape} and "
                f"{outputs.shape}, which do not fit; collect them anew"
            )
        return Sensitivity(
            np.ascontiguousarray(moments[int(held_out)]),
            np.array(outputs[entry.first_row : last_row]),
            entry.n_held_out if held_out else entry.n_tokens,
        )


def _load(path: Path, n_axes: int) -> NDArray[np.float32]:
    """Map a float32 array of so many axes; raises FormatError for anything else."""
    try:
        array: NDArray[np.float32] = load_array(path)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{path}: is no array of statistics ({error})") from error
    if array.dtype != np.float32 or array.ndim != n_axes:
        raise FormatError(f"{path}: is {array.dtype} {array.shape}; expected float32 statistics")
    return array


def write_index(directory: Path, about: dict[str, Any], entries: list[StatisticsEntry]) -> None:
    """Write the index, which makes a directory of statistics complete.

    Parameters
    ----------
    directory : Path
        The directory; all other files are in it.
    about : dict
        The model and the text that the statistics belong to, as JSON.
    entries : list of StatisticsEntry
        The matrices that have statistics.
    """
    body = {"version": _VERSION, "about": about, "matrices": [asdict(each) for each in entries]}
    write_atomically(directory / INDEX_FILE, json.dumps(body).encode(), durable=False)


def text_file(directory: Path) -> Path:
    """Return the path of the tokens.

    Parameters
    ----------
    directory : Path
        A directory of statistics.

    Returns
    -------
    Path
        The `.npy` file.
    """
    return directory / "text.npy"


def inputs_file(directory: Path, number: int) -> Path:
    """Return the path of the second moments of an input.

    Parameters
    ----------
    directory : Path
        A directory of statistics.
    number : int
        The number of the input.

    Returns
    -------
    Path
        The `.npy` file.
    """
    return directory / f"inputs-{number:04}.npy"


def outputs_file(directory: Path, number: int) -> Path:
    """Return the path of the mean squared gradients of an output.

    Parameters
    ----------
    directory : Path
        A directory of statistics.
    number : int
        The number of the output.

    Returns
    -------
    Path
        The `.npy` file.
    """
    return directory / f"outputs-{number:04}.npy"
