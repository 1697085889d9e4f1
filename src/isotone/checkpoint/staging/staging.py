"""An output directory that appears complete or not at all, and whose making can be resumed.

Work happens in OUT.partial beside OUT. Any worker writes a part to a scratch file of its own; the
one process that opened the staging finishes the part. Only then is the part's record written, so a
part without a record was not finished. When all is done, OUT.partial becomes OUT. The job
(arguments and identity of the source) is written first: work is resumed only for the same job.
Nothing that isotone did not write itself is ever removed.

`open.py` opens a staging; `local.py` has the one of a file system, `remote.py` that of an object
store.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isotone.checkpoint.files.location import locate
from isotone.checkpoint.staging.scratch import Scratch, new_scratch
from isotone.errors import InputError

MARKER_FILE = ".isotone"
"""In every directory that isotone published: only those are ever overwritten."""

JOB_FILE = ".job.json"


class Staging(ABC):
    """The directory OUT.partial of one running job.

    Parameters
    ----------
    out : Path
        Where the output will be.
    overwrite : bool
        Whether an older output of isotone's is replaced.
    """

    def __init__(self, out: Path, *, overwrite: bool) -> None:
        self.out, self.directory = out, out.with_name(out.name + ".partial")
        self._overwrite = overwrite

    @abstractmethod
    def record(self, name: str) -> Any | None:  # noqa: ANN401 (JSON)
        """Return what `finish` recorded of a part, or None if the part is not finished.

        Parameters
        ----------
        name : str
            The part.

        Returns
        -------
        JSON or None
            The record.
        """

    def scratch(self, name: str) -> Scratch:
        """Return where to write a part before it is finished; another place at each call.

        Parameters
        ----------
        name : str
            The part.

        Returns
        -------
        Scratch
            The place of one attempt.
        """
        return new_scratch(self.directory, name)

    @abstractmethod
    def finish(self, name: str, scratch: Scratch, record: Any) -> None:  # noqa: ANN401 (JSON)
        """Take what was written to a scratch as a part, and record that it is finished.

        Parameters
        ----------
        name : str
            The part.
        scratch : Scratch
            Where it was written.
        record : JSON
            What `record` returns from now on.
        """

    @abstractmethod
    def part(self, name: str) -> Path:
        """Return where a finished part is until the output is published.

        Parameters
        ----------
        name : str
            The part.

        Returns
        -------
        Path
            The file.
        """

    def note(self, name: str) -> Any | None:  # noqa: ANN401 (JSON)
        """Return what this job noted under a name, or None.

        Parameters
        ----------
        name : str
            The name of the note.

        Returns
        -------
        JSON or None
            The note.
        """
        content = self._read(f".note-{name}.json")
        return None if content is None else json.loads(content)

    def take_note(self, name: str, content: Any) -> None:  # noqa: ANN401 (JSON)
        """Note a result that a resumed run shall not compute again.

        Parameters
        ----------
        name : str
            The name of the note.
        content : JSON
            The result.
        """
        self.write(f".note-{name}.json", json.dumps(content).encode())

    def write(self, name: str, content: bytes) -> None:
        """Write a small file atomically.

        Parameters
        ----------
        name : str
            Its path relative to the directory.
        content : bytes
            All of its bytes.
        """
        self.write_pieces(name, [content])

    @abstractmethod
    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a file that may be larger than memory.

        Parameters
        ----------
        name : str
            Its path relative to the directory.
        pieces : iterable of bytes
            Its bytes, piece by piece.
        """

    @abstractmethod
    def discard(self) -> None:
        """Drop the job and all of its results, because nothing of them can be used."""

    @abstractmethod
    def publish(self) -> None:
        """Turn OUT.partial into OUT, in place of an older OUT if that is to be replaced."""

    @abstractmethod
    def _read(self, name: str) -> bytes | None:
        """Return what `write` wrote, or None."""

    @abstractmethod
    def _clear(self) -> None:
        """Mark OUT.partial as isotone's, then remove everything of a job that is in it."""

    def _refuse_other(self, job: dict[str, Any]) -> None:
        """Raise InputError if there is work of another job, unless that is to be dropped."""
        known = self._read(JOB_FILE)
        if known not in (None, _job_text(job)) and not self._overwrite:
            raise InputError(
                f"{self.directory}: holds unfinished work from another source, other arguments or "
                f"another isotone ({_difference(known or b'', job)}); run that command again to "
                "finish it, or give --overwrite to drop it"
            )

    def _adopt(self, job: dict[str, Any]) -> None:
        """Resume a job, or drop the work of another one and begin."""
        if self._read(JOB_FILE) != _job_text(job):
            self._clear()
            self.write(JOB_FILE, _job_text(job))


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an OSError into an InputError whose message says what to do.

    Parameters
    ----------
    out : Path
        What is being written, for an error that names no file.

    Yields
    ------
    None
        The body of the `with` writes.

    Raises
    ------
    InputError
        If the body raises OSError.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or out
        raise InputError(
            f"{where}: cannot be written: {error.strerror}; nothing was published, and "
            "finished work is kept; remove the cause and run the same command again"
        ) from error


def refuse_inside(out: str | Path, model: str | Path) -> None:
    """Refuse an output that is the model that is read, or lies in it.

    Parameters
    ----------
    out : str or Path
        Where the output would be.
    model : str or Path
        What is read.

    Raises
    ------
    InputError
        If the output is the model, or lies in it.
    """
    out, model = locate(out), locate(model)
    if model.exists() and model.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"{out}: is the model itself or lies in it; choose another OUT")


def refuse_existing(out: Path, *, own: bool, overwrite: bool) -> None:
    """Refuse an output that exists, unless isotone wrote it and it is to be replaced.

    Parameters
    ----------
    out : Path
        The existing output.
    own : bool
        Whether isotone wrote it.
    overwrite : bool
        Whether it is to be replaced.

    Raises
    ------
    InputError
        If it is not to be replaced, or isotone did not write it.
    """
    if not overwrite:
        raise InputError(f"{out}: exists; choose another OUT, or give --overwrite")
    if not own:
        raise InputError(
            f"{out}: was not written by isotone, so --overwrite does not replace it; "
            "choose another OUT"
        )


def foreign(partial: Path) -> InputError:
    """Return the error for an OUT.partial that isotone did not write.

    Parameters
    ----------
    partial : Path
        The directory.

    Returns
    -------
    InputError
        To be raised.
    """
    return InputError(
        f"{partial}: is where unfinished work would go, and was not written by isotone; move "
        "it away, or choose another OUT"
    )


def _job_text(job: dict[str, Any]) -> bytes:
    return json.dumps(job, sort_keys=True, indent=1).encode()


def _difference(known: bytes, job: dict[str, Any]) -> str:
    try:
        old = json.loads(known)
    except ValueError:
        return "its record is damaged"
    keys = [key for key in {**old, **job} if old.get(key) != job.get(key)]
    return "; ".join(f"{key} was {old.get(key)}, is {job.get(key)}" for key in keys)[:300]
