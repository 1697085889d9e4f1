"""A directory of what flows through a model's matrices, as `models.collect` writes it.

    text.npy             [windows, context] int64, the tokens that ran through the model
    inputs-NNNN.npy      [2, columns, columns] float32, second moments of an input: over the
                         windows that clusterings are made by, and over those held out to judge them
    outputs-NNNN.npy     [rows] float32, the mean squared gradients of an output
    statistics.json      which of them belong to which tensor; written last

Everything that is found has been written whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.atomic import write_atomically, writing_atomically
from isotone.core.calibrated.sensitivity import Sensitivity
from isotone.errors import FormatError

INDEX_FILE = "statistics.json"
_VERSION = 1


@dataclass(frozen=True)
class Observed:
    """Where the statistics of one matrix are.

    tensor: its name in the checkpoint. matrix: its place in a stack, else 0. inputs, outputs: the
    numbers of the files. first_row: of it in `outputs`, which may be that of several matrices.
    n_tokens, n_held_out: inputs seen in the two parts of the text.
    """

    tensor: str
    matrix: int
    inputs: int
    outputs: int
    first_row: int
    n_tokens: int
    n_held_out: int


class Statistics:
    """Reads such a directory."""

    def __init__(self, directory: Path, about: dict[str, Any], observed: list[Observed]) -> None:
        self.directory, self.about = directory, about
        self._observed = {(each.tensor, each.matrix): each for each in observed}

    @classmethod
    def open(cls, directory: Path) -> Statistics:
        """Raises FormatError where it is not one, or was made by another version of isotone."""
        path = directory / INDEX_FILE
        try:
            body = json.loads(path.read_text("utf-8"))
            if body["version"] != _VERSION:
                raise ValueError(f"version {body['version']}")
            observed = [Observed(**each) for each in body["matrices"]]
            return cls(directory, body["about"], observed)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path}: is no record of statistics ({error})") from error

    @cached_property
    def names(self) -> set[str]:
        """The tensors of which something is known."""
        return {name for name, _ in self._observed}

    def sensitivity(self, tensor: str, matrix: int, n_rows: int) -> Sensitivity | None:
        """By the windows that are for clustering; None for a matrix that was not seen."""
        return self._read(tensor, matrix, n_rows, held_out=False)

    def held_out(self, tensor: str, matrix: int, n_rows: int) -> Sensitivity | None:
        """By the windows that are for judging; None for a matrix that was not seen."""
        return self._read(tensor, matrix, n_rows, held_out=True)

    def spread_file(self, tensor: str, matrix: int) -> Path:
        """Where what was computed of a matrix and its input may be kept."""
        at = self._observed[tensor, matrix]
        return self.directory / f"ordered-{at.outputs:04}-{at.first_row}.npy"

    def _read(self, tensor: str, matrix: int, n_rows: int, *, held_out: bool) -> Sensitivity | None:
        at = self._observed.get((tensor, matrix))
        if at is None:
            return None
        moments = _load(inputs_file(self.directory, at.inputs), 3)
        outputs = _load(outputs_file(self.directory, at.outputs), 1)
        if moments.shape != (2, *moments.shape[1:2] * 2) or len(outputs) < at.first_row + n_rows:
            raise FormatError(
                f"{self.directory}: the statistics of {tensor} have shapes {moments.shape} and "
                f"{outputs.shape}, which do not fit; collect them anew"
            )
        return Sensitivity(
            np.ascontiguousarray(moments[int(held_out)]),
            np.array(outputs[at.first_row : at.first_row + n_rows]),
            at.n_held_out if held_out else at.n_tokens,
        )


def _load(path: Path, n_axes: int) -> NDArray[np.float32]:
    """A file of float32, mapped; raises FormatError for any other."""
    try:
        array: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{path}: is no array of statistics ({error})") from error
    if array.dtype != np.float32 or array.ndim != n_axes:
        raise FormatError(f"{path}: is {array.dtype} {array.shape}; expected float32 statistics")
    return array


def write_index(directory: Path, about: dict[str, Any], observed: list[Observed]) -> None:
    """Write what makes a directory of statistics complete."""
    body = {"version": _VERSION, "about": about, "matrices": [asdict(each) for each in observed]}
    write_atomically(directory / INDEX_FILE, json.dumps(body).encode(), durable=False)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array, whole or not at all, whoever else may be writing the same."""
    with writing_atomically(path, durable=False, unique=True) as file:
        np.save(file, array)


def text_file(directory: Path) -> Path:
    """Where the tokens are."""
    return directory / "text.npy"


def inputs_file(directory: Path, number: int) -> Path:
    """Where the second moments of an input are."""
    return directory / f"inputs-{number:04}.npy"


def outputs_file(directory: Path, number: int) -> Path:
    """Where the gradients of an output are."""
    return directory / f"outputs-{number:04}.npy"
