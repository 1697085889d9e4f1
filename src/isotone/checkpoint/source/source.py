"""What a checkpoint is to the rest of isotone: named tensors that can be read in pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.tensor_info import TensorInfo


@dataclass(frozen=True)
class CompanionFile:
    """A file that goes along with the weights: a tokenizer, a generation config, a licence.

    Attributes
    ----------
    name : str
        Its path relative to the model directory, with forward slashes.
    content : Path or bytes
        The file to copy, or the bytes to write.
    """

    name: str
    content: Path | bytes


class Source(Protocol):
    """A dense checkpoint that is read only, and safe to read from several threads.

    Any object with these members is a source; it must pickle, so that worker processes can read it
    too.
    """

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, in the order in which they are stored."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json; empty if there is none."""
        ...

    @property
    def companions(self) -> Sequence[CompanionFile]:
        """The other files of the model, without config.json."""
        ...

    @property
    def skipped(self) -> Sequence[str]:
        """The names of stored tensors that a Hugging Face model has no place for (some of GGUF)."""
        ...

    @property
    def left_out(self) -> Mapping[str, str]:
        """The files beside the weights that do not go along, by name, and why."""
        ...

    @property
    def n_bytes(self) -> int:
        """The bytes of the weight files on disk."""
        ...

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the little-endian bytes of a range of a flattened tensor.

        Parameters
        ----------
        tensor : TensorInfo
            One of `tensors`.
        start, stop : int
            The range in elements; `stop` is not part of it.

        Returns
        -------
        uint8 array, `[(stop - start) * itemsize]`
            The bytes of the elements.

        Raises
        ------
        FormatError
            If the file cannot be read, or ends before.
        """
        ...

    def forget(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Drop a range from the page cache if possible, because it will not be read again.

        Parameters
        ----------
        tensor : TensorInfo
            One of `tensors`.
        start, stop : int
            The range in elements.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return what must be equal in two runs that share work: files, sizes, times, as JSON."""
        ...
