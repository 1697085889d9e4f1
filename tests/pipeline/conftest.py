"""Plans made from a config alone need transformers, and are skipped where it is missing."""

from __future__ import annotations

from tests.builders.extras import MODELS, missing

collect_ignore = ["test_schedule.py"] if missing(*MODELS) else []
