"""An output directory that appears complete or not at all, and whose making can be resumed.

Work happens in OUT.partial beside OUT. A part is written to a scratch of its own by any worker, and
finished by the one process that opened the staging; only then is its record written, and a part
without a record was not finished. When all is done, OUT.partial becomes OUT. The job (arguments and
identity of the source) is written first: work is resumed only for the same job. Nothing that
isotone did not make itself is ever removed.

How that is done on a file system is in local_staging, how in an object store in remote_staging.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from isotone.checkpoint.files.location import is_remote, locate
from isotone.checkpoint.staging.scratch import Scratch, new_scratch
from isotone.errors import InputError

MARKER_FILE = ".isotone"
"""In every directory that isotone published: only those are ever overwritten."""

JOB_FILE = ".job.json"


class Staging(ABC):
    """The directory OUT.partial of one running job."""

    def __init__(self, out: Path, *, overwrite: bool) -> None:
        self.out, self.directory = out, out.with_name(out.name + ".partial")
        self._overwrite = overwrite

    @staticmethod
    def open(
        out: str | Path, job: dict[str, Any], *, overwrite: bool
    ) -> AbstractContextManager[Staging]:
        """Begin or resume a job.

        The `with` raises InputError where OUT exists (unless overwrite), where OUT.partial is none
        of isotone's, belongs to another job (unless overwrite) or to a running one, and for
        anything that cannot be written.
        """
        out = locate(out)
        if is_remote(out):
            from isotone.checkpoint.staging.remote import RemoteStaging

            return RemoteStaging.begin(out, job, overwrite=overwrite)
        from isotone.checkpoint.staging.local import LocalStaging

        return LocalStaging.begin(out, job, overwrite=overwrite)

    @abstractmethod
    def record(self, name: str) -> Any | None:  # noqa: ANN401 (JSON)
        """What `finish` recorded for a part, or None where it is not finished."""

    def scratch(self, name: str) -> Scratch:
        """Where to write a part before it is finished; another at each call."""
        return new_scratch(self.directory, name)

    @abstractmethod
    def finish(self, name: str, scratch: Scratch, record: Any) -> None:  # noqa: ANN401 (JSON)
        """Take what was written to a scratch as a part, and note that it is finished."""

    @abstractmethod
    def part(self, name: str) -> Path:
        """Where a finished part is, until all is published."""

    def note(self, name: str) -> Any | None:  # noqa: ANN401 (JSON)
        """What was noted under a name by this job, or None."""
        content = self._read(f".note-{name}.json")
        return None if content is None else json.loads(content)

    def take_note(self, name: str, content: Any) -> None:  # noqa: ANN401 (JSON)
        """Note something that a resumed run should not have to find again."""
        self.write(f".note-{name}.json", json.dumps(content).encode())

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""

    @abstractmethod
    def discard(self) -> None:
        """Drop the job and all that it came to: nothing is worth going on with."""

    @abstractmethod
    def publish(self) -> None:
        """Turn OUT.partial into OUT, in place of an older OUT where overwriting."""

    @abstractmethod
    def _read(self, name: str) -> bytes | None:
        """What `write` wrote, None where it did not."""

    @abstractmethod
    def _clear(self) -> None:
        """Mark OUT.partial as isotone's, then remove all else in it that is of a job."""

    def _refuse_other(self, job: dict[str, Any]) -> None:
        """Raise InputError where there is work of another job, unless that is to be dropped."""
        known = self._read(JOB_FILE)
        if known not in (None, _job_text(job)) and not self._overwrite:
            raise InputError(
                f"{self.directory}: holds unfinished work from another source, other arguments or "
                f"another isotone ({_difference(known or b'', job)}); run that command again to "
                "finish it, or give --overwrite to drop it"
            )

    def _adopt(self, job: dict[str, Any]) -> None:
        """Go on with a job, or drop what there is of another one and begin."""
        if self._read(JOB_FILE) != _job_text(job):
            self._clear()
            self.write(JOB_FILE, _job_text(job))


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn refusals to write into one line that says what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or out
        raise InputError(
            f"{where}: cannot be written: {error.strerror}; nothing was published, what is "
            "finished is kept: mend it and run the same command again"
        ) from error


def refuse_inside(out: str | Path, model: str | Path) -> None:
    """Raise InputError where OUT is what is read, or lies in it."""
    out, model = locate(out), locate(model)
    if model.exists() and model.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"{out}: is the model itself or lies in it; choose another OUT")


def refuse_existing(out: Path, *, own: bool, overwrite: bool) -> None:
    """Raise InputError for an OUT that exists, unless it is isotone's and to be replaced."""
    if not overwrite:
        raise InputError(f"{out}: exists; choose another OUT, or give --overwrite")
    if not own:
        raise InputError(
            f"{out}: was not written by isotone, so --overwrite does not replace it; "
            "choose another OUT"
        )


def foreign(partial: Path) -> InputError:
    """What to raise for an OUT.partial of somebody else."""
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
