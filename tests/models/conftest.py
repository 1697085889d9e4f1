"""These tests run models: they are skipped where PyTorch or transformers is missing."""

from __future__ import annotations

import pytest

from tests.builders.extras import MODELS, missing

collect_ignore_glob = ["*"] if missing(*MODELS) else []


@pytest.fixture(scope="session")
def compressed(tmp_path_factory):
    """For a kind of tiny model: its compressed directory, which is not to be changed."""
    from isotone.pipeline.compress import compress
    from tests.builders.tiny_models import K, write_tiny

    made = {}

    def make(kind):
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            compress(write_tiny(kind, root / "dense"), root / "out", k=K, workers=1)
            made[kind] = root / "out"
        return made[kind]

    return make
