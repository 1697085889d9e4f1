"""Collect the statistics of a model once, for any number of compressions."""

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
from isotone.models.open_source import open_source, refuse_unfit, runnable
from isotone.models.prefix import AUTO
from isotone.pipeline.calibrated.open_statistics import (
    calibration_prefix,
    collect_statistics,
    identity_of,
)
from isotone.pipeline.summary import peak_rss_bytes, tree_bytes
from isotone.plan.job import plan_job
from isotone.plan.settings import Selection

_JOB_FILE = "job.json"


@dataclass(frozen=True)
class CalibrateSummary:
    """The result of collecting statistics.

    Attributes
    ----------
    text : str
        `self`, or the path of the text file.
    n_tokens : int
        The number of tokens that ran through the model.
    bos : tuple of str
        The tokens that every window began with, as the tokenizer writes them; empty for none.
    whole_model : str or None
        Why the whole model was in memory at once; None if one layer at a time was.
    output_bytes : int
        The bytes of all files of the directory.
    seconds : float
        The time that the call took.
    peak_rss_bytes : int
        The largest resident memory of this process so far.
    """

    text: str
    n_tokens: int
    bos: tuple[str, ...]
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
    bos: str = AUTO,
    progress: Progress | None = None,
) -> CalibrateSummary:
    """Collect the statistics that `compress` takes as `calibrate=out`.

    Text runs through the model, and the second moments of the inputs of each matrix and the mean
    squared gradients of its outputs are written. They tell what an error in each weight does to the
    model's predictions. A call that was interrupted goes on where it was when it is repeated.

    Parameters
    ----------
    model : str or Path
        A model directory on this machine, or a hub id.
    out : str or Path
        The directory to write. It must not exist, unless an interrupted call with the same
        arguments left it.
    text : str or Path
        `self` for text that the model generates itself, or a UTF-8 text file.
    include : sequence of str, optional
        Globs of tensor names: only matrices that match one of them.
    exclude : sequence of str, optional
        Globs of tensor names: no matrices that match one of them.
    bos : str
        What every window begins with: `auto` for the tokens that the tokenizer puts before every
        text, `yes` for the beginning-of-sequence token even where it puts none, or `no`.
    progress : Progress, optional
        Is told how far the work has come.

    Returns
    -------
    CalibrateSummary
        The tokens that were used, sizes and times.

    Raises
    ------
    InputError
        If the model cannot be run, the text cannot be used, or `out` exists.
    FormatError
        If a file of the model is damaged.

    Notes
    -----
    The text runs through the model once, and a third of it once more forward and backward. Memory
    is that of one layer in float32 and of its second moments, unless the model cannot run layer by
    layer.

    References
    ----------
    Frantar et al., "GPTQ", arXiv 2210.17323, for the second moments of inputs; Martens and Grosse,
    "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", arXiv 1503.05671,
    for their product with the squared gradients of outputs.

    Examples
    --------
    >>> import isotone
    >>> isotone.calibrate("SmolLM2-135M", "statistics", text="text.txt")  # doctest: +SKIP
    >>> for bits in (3.1, 3.6):  # doctest: +SKIP
    ...     isotone.compress("SmolLM2-135M", f"{bits}", bits=bits, calibrate="statistics")
    """
    started, out = time.monotonic(), Path(out)
    source = runnable(open_source(model))
    refuse_unfit(source, model)
    refuse_inside(out, model)
    selection = Selection(include=tuple(include), exclude=tuple(exclude))
    clustered = plan_job(source, selection).clustered
    prefix = calibration_prefix(source, bos)
    by = identity_of(text, prefix)
    job = {"source": source.identity(), "by": by, "globs": [include, exclude]}
    _begin(out, json.dumps(job, sort_keys=True))
    with writing(out):
        collect_statistics(source, clustered, text, prefix, out, progress or Silent())
    return CalibrateSummary(
        text=str(text),
        n_tokens=int(load_array(text_file(out)).size),
        bos=prefix.names,
        whole_model=Statistics.open(out).about.get("whole_model"),
        output_bytes=tree_bytes(out),
        seconds=time.monotonic() - started,
        peak_rss_bytes=peak_rss_bytes(),
    )


def _begin(out: Path, job: str) -> None:
    """Create the directory, or accept one that an unfinished call of the same job created."""
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
