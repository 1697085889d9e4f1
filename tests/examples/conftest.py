"""The examples load models: they are skipped where a package for that is missing."""

from __future__ import annotations

from tests.builders.extras import TRAINING, missing

collect_ignore_glob = ["test_*.py"] if missing(*TRAINING) else []
