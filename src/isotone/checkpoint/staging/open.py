"""Opens the staging of an output: on a file system, or in an object store."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from isotone.checkpoint.files.location import is_remote, locate
from isotone.checkpoint.staging.local import LocalStaging
from isotone.checkpoint.staging.remote import RemoteStaging
from isotone.checkpoint.staging.staging import Staging


def open_staging(
    out: str | Path, job: dict[str, Any], *, overwrite: bool
) -> AbstractContextManager[Staging]:
    """Begin a job, or resume the same job.

    Parameters
    ----------
    out : str or Path
        Where the output will be: a path, or a URL of a store.
    job : dict
        What the output is made of and how, as JSON. Work is resumed only for an equal job.
    overwrite : bool
        Whether an older output of isotone's is replaced, and unfinished work of another job
        dropped.

    Returns
    -------
    context manager of Staging
        The `with` raises InputError if OUT exists and is not to be replaced; if OUT.partial was
        not written by isotone, holds another job, or is in use; and for anything that cannot be
        written.
    """
    out = locate(out)
    kind = RemoteStaging if is_remote(out) else LocalStaging
    return kind.begin(out, job, overwrite=overwrite)
