"""Opens the statistics to calibrate by, and collects them first if there are none yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isotone.calibration.statistics import INDEX_FILE, SELF, Statistics
from isotone.checkpoint.compressed.file_record import hash_file
from isotone.checkpoint.files.location import is_remote
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.staging.staging import Staging
from isotone.engine.progress import Progress
from isotone.errors import InputError
from isotone.models.transformers_calls import require_transformers
from isotone.plan.tensors import Clustered
from isotone.plan.vocabulary import has_row_per_token

_DIRECTORY = ".statistics"


def identity_of(calibrate: str | Path) -> dict[str, str]:
    """Return what identifies the text or the statistics to calibrate by, as JSON.

    Parameters
    ----------
    calibrate : str or Path
        `self`, a text file, or a directory of statistics.

    Returns
    -------
    dict of str to str
        The path, and the hash of the file or of the directory's index: a job with a changed file
        is another job.

    Raises
    ------
    InputError
        If there is no such file, or the directory holds no statistics.
    """
    if str(calibrate) == SELF:
        return {"text": SELF}
    path = Path(calibrate)
    if not path.exists():
        raise InputError(
            f"calibrate is {str(calibrate)!r}: no such file or directory; expected '{SELF}', a "
            "text file, or what isotone calibrate wrote"
        )
    if path.is_dir() and not (path / INDEX_FILE).is_file():
        raise InputError(f"{path}: has no {INDEX_FILE}; expected what isotone calibrate wrote")
    return {"text": str(path), "hash": hash_file(path / INDEX_FILE if path.is_dir() else path)}


def open_statistics(
    source: Source,
    plans: Sequence[Clustered],
    by: str | Path,
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
        If the model cannot be run, the statistics are those of another model, or they would have to
        be collected in an object store.
    FormatError
        If the statistics are damaged.
    """
    directory = Path(by)
    if not (directory / INDEX_FILE).is_file():
        if is_remote(staging.directory):
            raise InputError(
                f"{staging.out}: statistics cannot be collected in a store; collect them with "
                "isotone calibrate MODEL DIR, and give --calibrate DIR"
            )
        directory = staging.directory / _DIRECTORY
        collect_statistics(source, plans, by, directory, progress)
    statistics = Statistics.open(directory)
    if statistics.about["source"] != source.identity():
        raise InputError(f"{directory}: holds the statistics of another model; collect them anew")
    return statistics


def collect_statistics(
    source: Source, plans: Sequence[Clustered], by: str | Path, directory: Path, progress: Progress
) -> None:
    """Collect the statistics of some tensors, see `isotone.calibration.collect`.

    Matrices with a row for each token are left out: they are clustered without statistics.

    Parameters
    ----------
    source : Source
        The model.
    plans : sequence of Clustered
        The tensors.
    by : str or Path
        `self` or a text file.
    directory : Path
        The directory to write.
    progress : Progress
        Is told how far collecting has come.
    """
    require_transformers("calibrating")
    from isotone.calibration.collect import collect

    wanted = [plan for plan in plans if not has_row_per_token(source, plan.tensor)]
    collect(source, wanted, str(by), directory, progress)
