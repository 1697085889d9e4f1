"""Staging in an object store, which has neither renames nor locks, only whole objects.

OUT.partial/ holds the job, notes, small files, the scratch of every attempt at a part, and for each
finished part a record that names its scratch. Publishing has the store copy parts and small files
to OUT, isotone.json last (for a dense model: config.json), and then deletes OUT.partial/.

Whoever is killed, these statements hold at any moment:
- Writes are atomic: an object is there whole or not at all. A part is finished when its record is
  there.
- OUT/isotone.json is there only if everything that it lists is there. When an older OUT is
  replaced, its isotone.json is removed first: until the new one is there, OUT is no directory of
  isotone's.
- A run that was killed, also while it published, is resumed when it is started again.
- Only what carries isotone's marker is ever removed or replaced.
- Of two runs the later one continues the work, and the earlier one stops when it next finishes a
  part or publishes, because no store can tell the lock of a dead run from that of a live one. Two
  runs of the same job write the same bytes.
"""

from __future__ import annotations

import fnmatch
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from isotone.checkpoint.files.atomic import TEMPORARY_FILES
from isotone.checkpoint.files.location import key, reaching, store
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.checkpoint.source.weight_files import CONFIG_FILE
from isotone.checkpoint.staging.scratch import Scratch
from isotone.checkpoint.staging.staging import (
    MARKER_FILE,
    Staging,
    foreign,
    refuse_existing,
    writing,
)
from isotone.errors import InputError

_OWNER_FILE = ".owner"
_PUBLISHING_FILE = ".publishing"
_LAST = (CONFIG_FILE, MANIFEST_FILE)


class RemoteStaging(Staging):
    """Staging under the prefix OUT.partial/ of an object store.

    Parameters
    ----------
    out : Path
        Where the output will be: a path in a store.
    overwrite : bool
        Whether an older output of isotone's is replaced.
    """

    def __init__(self, out: Path, *, overwrite: bool) -> None:
        super().__init__(out, overwrite=overwrite)
        self._owner = secrets.token_hex(16).encode()
        self._files: dict[str, Path] = {}  # the files of the output, by name

    @classmethod
    @contextmanager
    def begin(cls, out: Path, job: dict[str, Any], *, overwrite: bool) -> Iterator[Self]:
        """Begin a job, or resume the same job; see `open_staging`.

        Parameters
        ----------
        out : Path
            Where the output will be: a path in a store.
        job : dict
            What the output is made of and how, as JSON.
        overwrite : bool
            Whether an older output, or unfinished work of another job, is dropped.

        Yields
        ------
        RemoteStaging
            The staging.

        Raises
        ------
        InputError
            If OUT is a whole store or bucket.
        """
        if not out.name:
            raise InputError(f"{out}: is a whole store or bucket; expected a path in it")
        staging = cls(out, overwrite=overwrite)
        with writing(out):
            staging._refuse_existing()
            staging._refuse_foreign()
            staging._refuse_other(job)
            staging.write(_OWNER_FILE, staging._owner)
            staging._adopt(job)
            yield staging

    def record(self, name: str) -> Any | None:  # noqa: ANN401 (JSON)
        content = self._read(f".{name}.json")
        if content is None:
            return None
        finished = json.loads(content)
        path = self.directory / finished["scratch"]
        with reaching(path):
            if not store(path).exists(key(path)):
                return None
        self._files[name] = path
        return finished["record"]

    def finish(self, name: str, scratch: Scratch, record: Any) -> None:  # noqa: ANN401 (JSON)
        self._check_owner()
        finished = {"scratch": scratch.path.name, "record": record}
        self.write(f".{name}.json", json.dumps(finished).encode())
        self._files[name] = scratch.path

    def part(self, name: str) -> Path:
        return self._files[name]

    def write(self, name: str, content: bytes) -> None:
        _write(self.directory / name, content)
        self._note_file(name)

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        path = self.directory / name
        with reaching(path), store(path).open(key(path), "wb") as file:
            for piece in pieces:
                file.write(piece)
        self._note_file(name)

    def _note_file(self, name: str) -> None:
        if not name.startswith("."):
            self._files[name] = self.directory / name

    def discard(self) -> None:
        with writing(self.out):
            _remove(self.directory, _names(self.directory))

    def publish(self) -> None:
        """Turn OUT.partial into OUT, in place of an older OUT if that is to be replaced."""
        self._check_owner()
        self._refuse_existing()
        self.write(_PUBLISHING_FILE, b"")
        old = _names(self.out)
        for name in [name for name in reversed(_LAST) if name in old]:
            _remove_one(self.out / name)
        _write(self.out / MARKER_FILE, b"")
        _remove(self.out, old.difference(_LAST, {MARKER_FILE}))
        last = [name for name in _LAST if name in self._files]
        self._copy([name for name in self._files if name not in last])
        for name in last:
            self._check_owner()
            self._copy([name])
        _remove_one(self.directory / _PUBLISHING_FILE)
        _remove(self.directory, _names(self.directory))

    def _read(self, name: str) -> bytes | None:
        path = self.directory / name
        try:
            with reaching(path):
                return bytes(store(path).cat_file(key(path)))
        except FileNotFoundError:
            return None

    def _clear(self) -> None:
        self.write(MARKER_FILE, b"")
        _remove(self.directory, _names(self.directory) - {MARKER_FILE, _OWNER_FILE})

    def _copy(self, names: Sequence[str]) -> None:
        """Have the store copy files of the output to OUT."""
        with reaching(self.out):
            targets = [key(self.out / name) for name in names]
            store(self.out).copy([key(self._files[name]) for name in names], targets)

    def _check_owner(self) -> None:
        if self._read(_OWNER_FILE) != self._owner:
            raise InputError(
                f"{self.directory}: another isotone was started and continues this work; this "
                "one stops"
            )

    def _refuse_foreign(self) -> None:
        names = _names(self.directory)
        late = set(fnmatch.filter(names, TEMPORARY_FILES))  # written by workers that were lost
        if names - late - {_OWNER_FILE} and MARKER_FILE not in names:
            raise foreign(self.directory)

    def _refuse_existing(self) -> None:
        names = _names(self.out)
        own = MARKER_FILE in names
        if names and not (own and self._read(_PUBLISHING_FILE) is not None):
            refuse_existing(self.out, own=own, overwrite=self._overwrite)


def _names(directory: Path) -> set[str]:
    """Return all objects under a prefix, relative to it; an object at the prefix itself is ''."""
    with reaching(directory):
        found = store(directory).find(key(directory))
    return {path.removeprefix(key(directory)).removeprefix("/") for path in found}


def _write(path: Path, content: bytes) -> None:
    with reaching(path):
        store(path).pipe_file(key(path), content)


def _remove(directory: Path, names: Iterable[str]) -> None:
    """Remove many objects at once, in any order."""
    paths = [key(directory / name) for name in names]
    if paths:
        with reaching(directory):
            store(directory).rm(paths)


def _remove_one(path: Path) -> None:
    """Remove one object, and raise if that fails; s3fs does not report failures of many."""
    with reaching(path):
        store(path).rm_file(key(path))
