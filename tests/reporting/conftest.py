"""These tests draw charts: they are skipped where the packages of isotone[report] are missing."""

from __future__ import annotations

from tests.builders.extras import CHARTS, missing

collect_ignore_glob = ["*"] if missing(*CHARTS) else []
