"""Statistics of a model collected once, for any number of compressions."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isotone.calibration.arrays import load_array
from isotone.calibration.statistics import INDEX_FILE, SELF, Statistics, text_file
from isotone.checkpoint.staging.staging import refuse_inside, writing
from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError
from isotone.models.open_source import open_source, runnable
from isotone.pipeline.calibrated.open_statistics import collect_statistics, identity_of
from isotone.pipeline.summary import peak_rss_bytes, tree_bytes
from isotone.plan.job import plan_job
from isotone.plan.settings import Selection

_JOB_FILE = "job.json"


@dataclass(frozen=True)
class CalibrateSummary:
    """What collecting came to: the tokens that ran through the model, and the bytes written.

    whole_model: why all of it was in memory at once, or None where one layer at a time was.
    """

    text: str
    n_tokens: int
    whole_model: str | None
    output_bytes: int
    seconds: float
    peak_rss_bytes: int


def calibrate(
    model: str | Path,
    out: str | Path,
    *,
    text: str | Path = SELF,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: Progress | None = None,
) -> CalibrateSummary:
    """Collect what flows through the matrices of a model, for `compress(calibrate=out)`.

    model: a model directory or a hub id. out: a directory that does not exist yet, or where an
    interrupted call with the same arguments is to go on. text: `self`, for text that the model
    writes, or a text file. include, exclude: globs of tensor names.
    Raises InputError and FormatError. See models.collect for what it costs.
    """
    started, out = time.monotonic(), Path(out)
    source = runnable(open_source(model))
    refuse_inside(out, model)
    selection = Selection(include=tuple(include), exclude=tuple(exclude))
    clustered = plan_job(source, selection).clustered
    job = {"source": source.identity(), "by": identity_of(text), "globs": [include, exclude]}
    _begin(out, json.dumps(job, sort_keys=True))
    with writing(out):
        collect_statistics(source, clustered, text, out, progress or Silent())
    return CalibrateSummary(
        text=str(text),
        n_tokens=int(load_array(text_file(out)).size),
        whole_model=Statistics.open(out).about.get("whole_model"),
        output_bytes=tree_bytes(out),
        seconds=time.monotonic() - started,
        peak_rss_bytes=peak_rss_bytes(),
    )


def _begin(out: Path, job: str) -> None:
    """Make the directory, or go on in one that was begun for the same job."""
    if (out / INDEX_FILE).exists():
        raise InputError(f"{out}: holds statistics already; choose another OUT")
    if out.exists():
        path = out / _JOB_FILE
        if not path.is_file() or path.read_text("utf-8") != job:
            raise InputError(
                f"{out}: exists, and is no unfinished work of this call; choose another"
            )
        return
    with writing(out):
        out.mkdir(parents=True)
        (out / _JOB_FILE).write_text(job, "utf-8")
