"""Commands that run models or draw charts are skipped where their packages are missing."""

from __future__ import annotations

from tests.builders.extras import CHARTS, MODELS, missing

collect_ignore = []
if missing(*MODELS):
    collect_ignore += ["test_evaluate.py", "test_frontier.py", "test_json_keys.py", "test_study.py"]
    collect_ignore += ["test_bos.py"]
if missing("ray", *MODELS):
    collect_ignore += ["test_on_ray.py"]
if missing(*CHARTS):
    collect_ignore += ["test_frontier.py", "test_report.py"]
