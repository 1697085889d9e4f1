"""The files beside the shards: config, index, tokenizer; large ones are copied in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from isotone.checkpoint.compressed.file_record import FileRecord, read_pieces
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.staging.staging import Staging


def json_bytes(content: dict[str, Any]) -> bytes:
    """Return a table as the JSON files of a model directory hold it.

    Parameters
    ----------
    content : dict
        The table.

    Returns
    -------
    bytes
        The content of the file.
    """
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def weight_index(shards: Mapping[str, Path]) -> bytes:
    """Return the index with which transformers finds the shard of each stored array.

    Parameters
    ----------
    shards : mapping of str to Path
        The files, by the names that they will have.

    Returns
    -------
    bytes
        The content of model.safetensors.index.json.

    Raises
    ------
    FormatError
        If a shard is damaged.
    """
    files = {name: SafetensorsFile.open(path) for name, path in shards.items()}
    weight_map = {t.name: name for name, f in files.items() for t in f.tensors}
    index = {
        "metadata": {"total_size": sum(t.n_bytes for f in files.values() for t in f.tensors)},
        "weight_map": dict(sorted(weight_map.items())),
    }
    return json_bytes(index)


def write_small_files(staging: Staging, contents: Mapping[str, bytes | Path]) -> list[FileRecord]:
    """Write the files beside the shards.

    Parameters
    ----------
    staging : Staging
        Where to write them.
    contents : mapping of str to bytes or Path
        The content of each file by its name, or a file to copy.

    Returns
    -------
    list of FileRecord
        What is to be recorded of them, ordered by name.
    """
    records = []
    for name, content in sorted(contents.items()):
        if isinstance(content, bytes):
            staging.write(name, content)
            records.append(FileRecord(name, len(content), blake3(content).hexdigest()))
        else:
            records.append(_copy(staging, name, content))
    return records


def _copy(staging: Staging, name: str, path: Path) -> FileRecord:
    """Copy a file of any size in pieces; what is recorded is what was written."""
    hasher, sizes = blake3(), []

    def pieces() -> Iterator[bytes]:
        for piece in read_pieces(path):
            hasher.update(piece)
            sizes.append(len(piece))
            yield piece

    staging.write_pieces(name, pieces())
    return FileRecord(name, sum(sizes), hasher.hexdigest())
