"""Opens the statistics to calibrate by, and collects them first if there are none yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isotone.calibration.statistics import INDEX_FILE, SELF, Statistics
from isotone.checkpoint.compressed.file_record import hash_file
from isotone.checkpoint.files.location import is_remote, locate
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.staging.staging import Staging
from isotone.engine.progress import Progress
from isotone.errors import InputError
from isotone.models.open_source import runnable
from isotone.models.prefix import AUTO, Prefix, find_prefix, shown
from isotone.models.transformers_calls import require_transformers
from isotone.plan.tensors import Clustered

_DIRECTORY = ".statistics"


def identity_of(calibrate: str | Path, prefix: Prefix) -> dict[str, Any]:
    """Return what identifies the text or the statistics to calibrate by, as JSON.

    Parameters
    ----------
    calibrate : str or Path
        `self`, a text file, or a directory of statistics.
    prefix : Prefix
        The tokens that every window of the text begins with.

    Returns
    -------
    dict
        The path, the hash of the file or of the directory's index, and the prefix if there is one:
        a job with a changed file or another prefix is another job.

    Raises
    ------
    InputError
        If there is no such file, or the directory holds no statistics.
    """
    # Jobs of versions that knew no prefix had none, and go on if there is none now.
    beginning = {"bos": list(prefix.names)} if prefix else {}
    if str(calibrate) == SELF:
        return {"text": SELF, **beginning}
    path = Path(calibrate)
    if not path.exists():
        raise InputError(
            f"calibrate is {str(calibrate)!r}: no such file or directory; expected '{SELF}', a "
            "text file, or what isotone calibrate wrote"
        )
    if path.is_dir() and not (path / INDEX_FILE).is_file():
        raise InputError(f"{path}: has no {INDEX_FILE}; expected what isotone calibrate wrote")
    digest = hash_file(path / INDEX_FILE if path.is_dir() else path)
    return {"text": str(path), "hash": digest, **beginning}


def calibration_prefix(source: Source, bos: str = AUTO) -> Prefix:
    """Return the tokens that every window begins with when a model is calibrated.

    Parameters
    ----------
    source : Source
        The model.
    bos : str
        `auto`, `yes` or `no`, as `isotone.models.prefix.find_prefix` takes it.

    Returns
    -------
    Prefix
        The tokens.

    Raises
    ------
    InputError
        If the model cannot be run, or its tokenizer has no such token.
    MissingExtraError
        If transformers is not installed.
    """
    require_transformers("calibrating")
    from isotone.calibration.model import open_files

    return find_prefix(open_files(runnable(source)), bos)


def refuse_in_store(out: str | Path, by: str | Path) -> None:
    """Refuse to collect statistics in an object store.

    Parameters
    ----------
    out : str or Path
        The output directory, or its URL.
    by : str or Path
        A directory of statistics; or `self` or a text file, by which they would be collected.

    Raises
    ------
    InputError
        If the output is in a store, and statistics would have to be collected.
    """
    if is_remote(locate(out)) and not (Path(by) / INDEX_FILE).is_file():
        raise InputError(
            f"{out}: statistics cannot be collected in a store; collect them with isotone "
            "calibrate MODEL DIR, and give --calibrate DIR"
        )


def open_statistics(
    source: Source,
    plans: Sequence[Clustered],
    by: str | Path,
    prefix: Prefix,
    staging: Staging,
    progress: Progress,
) -> Statistics:
    """Open the statistics of some tensors.

    Parameters
    ----------
    source : Source
        The model.
    plans : sequence of Clustered
        The tensors.
    by : str or Path
        A directory of statistics; or `self` or a text file, by which they are collected in the
        output directory under construction if that has not been done.
    prefix : Prefix
        The tokens that every window of the text begins with.
    staging : Staging
        The output directory under construction.
    progress : Progress
        Is told how far collecting has come.

    Returns
    -------
    Statistics
        The statistics.

    Raises
    ------
    InputError
        If the model cannot be run, or the statistics are those of another model or of windows that
        begin otherwise.
    FormatError
        If the statistics are damaged.
    """
    directory = Path(by)
    if not (directory / INDEX_FILE).is_file():
        directory = staging.directory / _DIRECTORY
        collect_statistics(source, plans, by, prefix, directory, progress)
    statistics = Statistics.open(directory)
    if statistics.about["source"] != source.identity():
        raise InputError(f"{directory}: holds the statistics of another model; collect them anew")
    recorded = tuple(statistics.about.get("bos", ()))
    if recorded != prefix.names:
        raise InputError(
            f"{directory}: holds the statistics of text whose windows begin with "
            f"{shown(recorded)}, and they are to begin with {shown(prefix.names)}; collect them "
            "anew, or give --bos as they were collected"
        )
    return statistics


def collect_statistics(
    source: Source,
    plans: Sequence[Clustered],
    by: str | Path,
    prefix: Prefix,
    directory: Path,
    progress: Progress,
) -> None:
    """Collect the statistics of some tensors, see `isotone.calibration.collect`.

    Parameters
    ----------
    source : Source
        The model.
    plans : sequence of Clustered
        The tensors.
    by : str or Path
        `self` or a text file.
    prefix : Prefix
        The tokens that every window of the text begins with.
    directory : Path
        The directory to write.
    progress : Progress
        Is told how far collecting has come.
    """
    require_transformers("calibrating")
    from isotone.calibration.collect import collect

    collect(source, plans, str(by), prefix, directory, progress)
