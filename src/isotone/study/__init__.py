"""Rank studies: what the order of the centroids is worth.

A study changes codebooks while every weight keeps its rank, and measures the model after each
change. This package's names are imported when they are first used, since measuring needs torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isotone.study.codebooks import edited_codebooks
    from isotone.study.comparison import CodebookComparison, compare_codebooks
    from isotone.study.edits import EDITS
    from isotone.study.edits.corrections import CORRECTIONS
    from isotone.study.edits.kind import EditKind
    from isotone.study.plan import Plan, parse_plan, plans, read_plan
    from isotone.study.record import StudyRecord, StudyRun
    from isotone.study.run import StudySummary, run_study

__all__ = [
    "CORRECTIONS",
    "EDITS",
    "CodebookComparison",
    "EditKind",
    "Plan",
    "StudyRecord",
    "StudyRun",
    "StudySummary",
    "compare_codebooks",
    "edited_codebooks",
    "parse_plan",
    "plans",
    "read_plan",
    "run_study",
]

_HOMES = {
    "CORRECTIONS": "edits.corrections",
    "EDITS": "edits",
    "CodebookComparison": "comparison",
    "EditKind": "edits.kind",
    "Plan": "plan",
    "StudyRecord": "record",
    "StudyRun": "record",
    "StudySummary": "run",
    "compare_codebooks": "comparison",
    "edited_codebooks": "codebooks",
    "parse_plan": "plan",
    "plans": "plan",
    "read_plan": "plan",
    "run_study": "run",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever the name stands for)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'isotone.study' has no attribute {name!r}")
    value = getattr(import_module(f"isotone.study.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
