"""The tests of a Ray cluster are skipped where Ray is missing."""

from __future__ import annotations

from tests.builders.extras import missing

collect_ignore = ["test_ray_engine.py"] if missing("ray") else []
