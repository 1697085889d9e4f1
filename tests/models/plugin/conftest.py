"""Tiny models compressed, and decompressed again."""

from __future__ import annotations

import pytest
import torch

from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from tests.builders.tiny_models import K, write_tiny


@pytest.fixture(scope="session")
def roundtrips(tmp_path_factory):
    """For a kind of model: its dense directory, the compressed one, and that one decompressed."""
    made = {}

    def make(kind, dtype=torch.bfloat16):
        if (kind, dtype) not in made:
            root = tmp_path_factory.mktemp(kind)
            dense = write_tiny(kind, root / "dense", dtype)
            compress(dense, root / "out", k=K, workers=1)
            decompress(root / "out", root / "plain", workers=1)
            made[kind, dtype] = dense, root / "out", root / "plain"
        return made[kind, dtype]

    return make
