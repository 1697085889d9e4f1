"""These tests run models: they are skipped where PyTorch or transformers is missing."""

from __future__ import annotations

from tests.builders.extras import MODELS, missing

if missing(*MODELS):
    collect_ignore_glob = ["*"]
else:
    from tests.builders.calibrated_models import dense as dense
    from tests.builders.calibrated_models import statistics as statistics
    from tests.builders.calibrated_models import text as text
