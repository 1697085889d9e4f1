"""What was measured, told apart by content: hashes of models and texts."""

from __future__ import annotations

import hashlib
import json

from isotone.checkpoint.compressed.manifest import hash_file
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.engine.progress import Progress


def text_hash(content: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(content.encode()).hexdigest()


def model_hash(source: ModelDirectory, progress: Progress) -> str:
    """SHA-256 over the weight files' names and BLAKE3 hashes, and the config.

    Content alone, no times: a copy is the same model. Cost: one read of the weights.
    """
    progress.begin("hashing the model", source.n_bytes)
    hasher = hashlib.sha256(json.dumps(source.config, sort_keys=True).encode())
    for file in sorted(source.files, key=lambda file: file.path.name):
        hasher.update(f"\n{file.path.name} {hash_file(file.path)}".encode())
        progress.advance(file.n_bytes)
    return hasher.hexdigest()
