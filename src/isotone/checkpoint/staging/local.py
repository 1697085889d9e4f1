"""Staging on a file system: finished parts and the whole output are renamed, under a lock."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from isotone.checkpoint.files.atomic import TEMPORARY_FILES, writing_atomically
from isotone.checkpoint.files.lock import take_lock
from isotone.checkpoint.staging.scratch import Scratch
from isotone.checkpoint.staging.staging import (
    JOB_FILE,
    MARKER_FILE,
    Staging,
    foreign,
    refuse_existing,
    writing,
)

_LOCK_FILE = ".lock"


class LocalStaging(Staging):
    """Staging in a directory, on a disk or a shared file system."""

    @classmethod
    @contextmanager
    def begin(cls, out: Path, job: dict[str, Any], *, overwrite: bool) -> Iterator[Self]:
        """Begin a job, or resume the same job; see `open_staging`.

        Parameters
        ----------
        out : Path
            Where the output will be.
        job : dict
            What the output is made of and how, as JSON.
        overwrite : bool
            Whether an older output, or unfinished work of another job, is dropped.

        Yields
        ------
        LocalStaging
            The staging, locked until the `with` ends.
        """
        out = Path(os.path.abspath(out))  # noqa: PTH100 (resolve() would follow a link at OUT)
        staging = cls(out, overwrite=overwrite)
        partial = staging.directory
        with writing(out):
            staging._refuse_existing()
            _refuse_foreign(partial)
            partial.mkdir(parents=True, exist_ok=True)
            with (partial / _LOCK_FILE).open("w") as lock:
                take_lock(lock, partial)
                staging._refuse_other(job)
                staging._adopt(job)
                for path in partial.glob(TEMPORARY_FILES):  # left by a run that was killed
                    path.unlink()
                yield staging

    def record(self, name: str) -> Any | None:  # noqa: ANN401 (JSON)
        content = self._read(f".{name}.json")
        return json.loads(content) if content is not None and self.part(name).exists() else None

    def finish(self, name: str, scratch: Scratch, record: Any) -> None:  # noqa: ANN401 (JSON)
        scratch.path.rename(self.part(name))
        self.write(f".{name}.json", json.dumps(record).encode())

    def part(self, name: str) -> Path:
        return self.directory / name

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_atomically(path) as file:
            file.writelines(pieces)

    def discard(self) -> None:
        with writing(self.out):
            _remove_own(self.directory)

    def publish(self) -> None:
        """Turn OUT.partial into OUT, in place of an older OUT if that is to be replaced.

        The lock file moves along and is removed last, so that no other run can begin before OUT is
        there.
        """
        self._refuse_existing()
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

    def _read(self, name: str) -> bytes | None:
        path = self.directory / name
        return path.read_bytes() if path.exists() else None

    def _clear(self) -> None:
        # The marker comes first, so that the directory is isotone's own at every moment.
        (self.directory / MARKER_FILE).touch()
        for path in self.directory.iterdir():
            if path.name not in (MARKER_FILE, _LOCK_FILE):
                _remove(path)

    def _refuse_existing(self) -> None:
        if self.out.exists() or self.out.is_symlink():
            refuse_existing(self.out, own=_is_own(self.out), overwrite=self._overwrite)


def _refuse_foreign(partial: Path) -> None:
    if not partial.is_dir() or _is_own(partial) or (partial / JOB_FILE).is_file():
        return
    if any(path.name != _LOCK_FILE for path in partial.iterdir()):
        raise foreign(partial)


def _is_own(directory: Path) -> bool:
    return (directory / MARKER_FILE).is_file()


def _remove_own(directory: Path) -> None:
    """Remove a directory of isotone's, or what a killed run left of one; its marker last."""
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
