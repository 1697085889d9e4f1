"""These tests train models: they are skipped where a package for that is missing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.builders.extras import TRAINING, missing

collect_ignore_glob = ["*"] if missing(*TRAINING) else []


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A dense model, clusterings of it, and a text: see write_models. Not to be written to."""
    from tests.builders.healings import write_models

    return write_models(tmp_path_factory.mktemp("heal"))


@pytest.fixture(scope="session")
def done(models):
    """A healed directory beside the others, and what healing it came to. Not to be written to."""
    from tests.builders.healings import healed

    out = models.clustered.parent / "healed"
    return SimpleNamespace(out=out, result=healed(models, out))
