"""What to say of one part of a GGUF model that was split into several files."""

from __future__ import annotations

from pathlib import Path

from isotone.checkpoint.files.numbered import NumberedName
from isotone.errors import InputError


def n_parts_by_name(name: str) -> int:
    """Return into how many files a model was split, as the name of one of them says.

    Parameters
    ----------
    name : str
        The name of a GGUF file.

    Returns
    -------
    int
        1 if the name counts no parts.

    Examples
    --------
    >>> n_parts_by_name("llama-q4-00001-of-00003.gguf"), n_parts_by_name("llama-q4.gguf")
    (3, 1)
    """
    numbered = NumberedName.parse(name)
    return 1 if numbered is None else numbered.total


def one_part(path: Path, n_parts: int) -> InputError:
    """Return the error for one part of a split GGUF.

    Parameters
    ----------
    path : Path
        The file.
    n_parts : int
        How many parts there are.

    Returns
    -------
    InputError
        To be raised.
    """
    return InputError(
        f"{path}: is one of {n_parts} parts of a split GGUF; join them first "
        "(llama-gguf-split --merge FIRST NEW), and give NEW"
    )
