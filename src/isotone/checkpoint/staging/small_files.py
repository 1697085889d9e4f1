"""The files beside the shards: config, index, tokenizer and the like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from isotone.checkpoint.compressed.manifest import FileRecord, changed_file
from isotone.checkpoint.files.location import reaching
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.staging.staging import Staging
from isotone.errors import FormatError


def json_bytes(content: dict[str, Any]) -> bytes:
    """A table as the files of a model directory hold it."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def weight_index(shards: Mapping[str, Path]) -> bytes:
    """Where each stored array lies, as transformers looks it up; raises FormatError.

    shards: the files by the names that they will have.
    """
    files = {name: SafetensorsFile.open(path) for name, path in shards.items()}
    weight_map = {t.name: name for name, f in files.items() for t in f.tensors}
    index = {
        "metadata": {"total_size": sum(t.n_bytes for f in files.values() for t in f.tensors)},
        "weight_map": dict(sorted(weight_map.items())),
    }
    return json_bytes(index)


def write_small_files(staging: Staging, contents: Mapping[str, bytes | Path]) -> list[FileRecord]:
    """Write each file, from its content or a file to copy, and describe them, ordered by name."""
    records = []
    for name, content in sorted(contents.items()):
        data = content if isinstance(content, bytes) else content.read_bytes()
        staging.write(name, data)
        records.append(FileRecord(name, len(data), blake3(data).hexdigest()))
    return records


def read_small_file(directory: Path, record: FileRecord) -> bytes:
    """The content of a recorded file; raises FormatError where it is another one, or gone."""
    path = directory / record.name
    try:
        with reaching(path):
            content = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    if blake3(content).hexdigest() != record.hash:
        raise changed_file(path)
    return content
