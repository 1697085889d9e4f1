"""These tests run models: they are skipped where PyTorch or transformers is missing."""

from __future__ import annotations

from tests.builders.extras import MODELS, missing

collect_ignore_glob = ["*"] if missing(*MODELS) else []
