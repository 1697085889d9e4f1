"""Where one attempt at a part of an output is written, by any process on any machine.

Each attempt has a place of its own, so that a worker that was given up, and still writes, disturbs
nobody. A scratch pickles: it is a path.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from isotone.checkpoint.files.atomic import temporary_name
from isotone.checkpoint.files.location import is_remote, key, reaching, store


@dataclass(frozen=True)
class Scratch:
    """The place of one attempt. path: of the whole file, once it was written."""

    path: Path

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A local path to write the file to; on an exception nothing is left of it.

        For a store, that is a temporary file, which is uploaded at the end of the `with`: it
        appears there whole or not at all. Raises OSError.
        """
        if is_remote(self.path):
            with tempfile.TemporaryDirectory(prefix="isotone-") as directory:
                path = Path(directory, self.path.name)
                yield path
                with reaching(self.path):
                    store(self.path).put_file(str(path), key(self.path))
            return
        try:
            yield self.path
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise


def new_scratch(directory: Path, name: str) -> Scratch:
    """A place for an attempt at the part of a name; directory: that of a staging."""
    return Scratch(directory / temporary_name(name, unique=True))
