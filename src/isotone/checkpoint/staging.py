"""An output directory that appears complete or not at all, and whose making can be resumed.

Work happens in OUT.partial beside OUT. A finished part is renamed to its final name there, and
only then is its record written; a part without a record was not finished. When all is done the
directory is renamed to OUT. The job (arguments and identity of the source) is written first: work
is resumed only for the same job. Nothing that isotone did not make itself is ever removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from isotone.errors import InputError

MARKER_FILE = ".isotone"
"""In every directory that isotone published: only those are ever overwritten."""

_JOB_FILE = ".job.json"
_LOCK_FILE = ".lock"


class Staging:
    """The directory OUT.partial of one running job."""

    def __init__(self, out: Path, partial: Path, lock: TextIO, *, overwrite: bool) -> None:
        self.out, self.directory, self._lock, self._overwrite = out, partial, lock, overwrite

    @classmethod
    @contextmanager
    def open(cls, out: Path, job: dict[str, Any], *, overwrite: bool) -> Iterator[Staging]:
        """Begin or resume a job.

        Raises InputError where OUT exists (unless overwrite), where OUT.partial is none of
        isotone's, belongs to another job (unless overwrite) or to a running one, and for anything
        that cannot be written.
        """
        out = Path(os.path.abspath(out))  # noqa: PTH100 (resolve() would follow a link at OUT)
        partial = out.with_name(out.name + ".partial")
        with writing(out):
            _refuse_existing(out, overwrite=overwrite)
            _refuse_foreign(partial)
            partial.mkdir(parents=True, exist_ok=True)
            with (partial / _LOCK_FILE).open("w") as lock:
                _take(lock, partial)
                _adopt(partial, job, overwrite=overwrite)
                yield cls(out, partial, lock, overwrite=overwrite)

    def record(self, name: str) -> Any | None:  # noqa: ANN401 (JSON)
        """What `finish` recorded for a part, or None where it is not finished."""
        record = self.directory / f".{name}.json"
        if not record.exists() or not (self.directory / name).exists():
            return None
        return json.loads(record.read_text("utf-8"))

    def scratch(self, name: str) -> Path:
        """Where to write a part before it is finished."""
        return new_scratch(self.directory, name)

    def finish(self, name: str, scratch: Path, record: Any) -> None:  # noqa: ANN401 (JSON)
        """Give a part that was written to scratch its name, then note that it is finished."""
        scratch.rename(self.directory / name)
        self.write(f".{name}.json", json.dumps(record).encode())

    def note(self, name: str) -> Any | None:  # noqa: ANN401 (JSON)
        """What was noted under a name by this job, or None."""
        path = self.directory / f".note-{name}.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def take_note(self, name: str, content: Any) -> None:  # noqa: ANN401 (JSON)
        """Note something that a resumed run should not have to find again."""
        self.write(f".note-{name}.json", json.dumps(content).encode())

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        _write(self.directory / name, content)

    def discard(self) -> None:
        """Drop the job and all that it came to: nothing is worth going on with."""
        with writing(self.out):
            _remove_own(self.directory)

    def publish(self) -> None:
        """Turn OUT.partial into OUT, in place of an older OUT where overwriting.

        The lock goes along and is removed last: until OUT is there, no other run can get in.
        """
        _refuse_existing(self.out, overwrite=self._overwrite)
        (self.directory / MARKER_FILE).touch()
        for path in self.directory.glob(".*"):
            if path.name not in (MARKER_FILE, _LOCK_FILE):
                _remove(path)
        replaced = self.out.with_name(f".{self.out.name}.replaced")
        if self.out.exists() or self.out.is_symlink():
            _remove_own(replaced)
            self.out.rename(replaced)
        self.directory.rename(self.out)
        (self.out / _LOCK_FILE).unlink()
        _remove_own(replaced)
        descriptor = os.open(self.out.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def new_scratch(directory: Path, name: str) -> Path:
    """Where a worker may write a part of a staging directory before it is finished.

    Another file at each call: a worker that was given up may still be writing to its own.
    """
    return directory / f".{name}.{secrets.token_hex(8)}.tmp"


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one line that says what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or out
        raise InputError(
            f"{where}: cannot be written: {error.strerror}; nothing was published, what is "
            "finished is kept: mend it and run the same command again"
        ) from error


def refuse_inside(out: Path, model: Path) -> None:
    """Raise InputError where OUT is what is read, or lies in it."""
    if model.exists() and model.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"{out}: is the model itself or lies in it; choose another OUT")


def _refuse_existing(out: Path, *, overwrite: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise InputError(f"{out}: exists; choose another OUT, or give --overwrite")
    if not _is_own(out):
        raise InputError(
            f"{out}: was not written by isotone, so --overwrite does not replace it; "
            "choose another OUT"
        )


def _refuse_foreign(partial: Path) -> None:
    if not partial.is_dir() or _is_own(partial) or (partial / _JOB_FILE).is_file():
        return
    if any(path.name != _LOCK_FILE for path in partial.iterdir()):
        raise InputError(
            f"{partial}: is where unfinished work would go, and was not written by isotone; move "
            "it away, or choose another OUT"
        )


def _take(lock: TextIO, partial: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{partial}: another isotone is at work there; wait for it") from None


def _adopt(partial: Path, job: dict[str, Any], *, overwrite: bool) -> None:
    text = json.dumps(job, sort_keys=True, indent=1)
    job_file = partial / _JOB_FILE
    if job_file.exists() and job_file.read_text("utf-8") != text and not overwrite:
        raise InputError(
            f"{partial}: holds unfinished work from another source, other arguments or another "
            f"isotone ({_difference(job_file, job)}); run that command again to finish it, or "
            "give --overwrite to drop it"
        )
    if not job_file.exists() or job_file.read_text("utf-8") != text:
        (partial / MARKER_FILE).touch()  # isotone's own, at every moment
        for path in partial.iterdir():
            if path.name not in (MARKER_FILE, _LOCK_FILE):
                _remove(path)
        _write(job_file, text.encode())
    for path in partial.glob(".*.tmp"):  # of a run that was killed
        path.unlink()


def _difference(job_file: Path, job: dict[str, Any]) -> str:
    try:
        old = json.loads(job_file.read_text("utf-8"))
    except ValueError:
        return "its record is damaged"
    keys = [key for key in {**old, **job} if old.get(key) != job.get(key)]
    return "; ".join(f"{key} was {old.get(key)}, is {job.get(key)}" for key in keys)[:300]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    with scratch.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)


def _is_own(directory: Path) -> bool:
    return (directory / MARKER_FILE).is_file()


def _remove_own(directory: Path) -> None:
    """Remove a directory of isotone's, or what a killed run left of one: the marker goes last."""
    if directory.is_symlink() and _is_own(directory):
        directory.unlink()
    elif _is_own(directory):
        for path in directory.iterdir():
            if path.name != MARKER_FILE:
                _remove(path)
        (directory / MARKER_FILE).unlink()
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
