"""What was measured, identified by content: hashes of models and texts, and how two differ."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from isotone.checkpoint.compressed.file_record import hash_file
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.engine.progress import Progress


def text_hash(content: str) -> str:
    """Return the SHA-256 of a text.

    Parameters
    ----------
    content : str
        The text, which is hashed as UTF-8.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> text_hash("isotone")[:12]
    'd992e6d6d369'
    """
    return hashlib.sha256(content.encode()).hexdigest()


def model_hash(source: ModelDirectory, progress: Progress) -> str:
    """Return the SHA-256 of a model's weight files and config.

    Parameters
    ----------
    source : ModelDirectory
        The model.
    progress : Progress
        Is told how many bytes are hashed.

    Returns
    -------
    str
        64 hexadecimal digits, over the config and the names and BLAKE3 hashes of the weight files.
        Times do not count: a copy is the same model.

    Notes
    -----
    The cost is one read of the weights.
    """
    progress.begin("hashing the model", source.n_bytes)
    hasher = hashlib.sha256(json.dumps(source.config, sort_keys=True).encode())
    for file in sorted(source.files, key=lambda file: file.path.name):
        hasher.update(f"\n{file.path.name} {hash_file(file.path)}".encode())
        progress.advance(file.n_bytes)
    return hasher.hexdigest()


def difference(old: Any, new: Any) -> str:  # noqa: ANN401 (dataclasses of one kind)
    """Say in words how two descriptions of what is measured differ.

    Parameters
    ----------
    old : dataclass instance
        The description that results were measured with.
    new : dataclass instance
        The present description, of the same class.

    Returns
    -------
    str
        One clause for each field that differs, for a message.
    """
    was, now = asdict(old), asdict(new)
    changed = [key for key in was if was[key] != now[key]]
    return "; ".join(f"{key} was {_shown(was[key])}, is {_shown(now[key])}" for key in changed)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return value[:12] + "…" if isinstance(value, str) and len(value) == 64 else str(value)
