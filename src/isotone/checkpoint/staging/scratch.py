"""The place where one attempt at a part of an output is written, by any process on any machine.

Each attempt has a place of its own, so that a worker that was given up and still writes disturbs no
other one. A scratch pickles: it is a path.
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
    """The place of one attempt.

    Attributes
    ----------
    path : Path
        Where the whole file is, once it was written.
    """

    path: Path

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a local path to write the file to; after an exception nothing is left of it.

        For a store the path is a temporary file, which is uploaded when the `with` ends: it appears
        there whole or not at all.

        Yields
        ------
        Path
            The file to write.

        Raises
        ------
        OSError
            If the file cannot be uploaded.
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
    """Return the place of a new attempt at a part.

    Parameters
    ----------
    directory : Path
        The directory of a staging.
    name : str
        The part.

    Returns
    -------
    Scratch
        A place that no other attempt has.
    """
    return Scratch(directory / temporary_name(name, unique=True))
