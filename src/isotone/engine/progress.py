"""How long work tells what it has come to."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far long work has come."""

    def begin(self, what: str, total: int, unit: str = "bytes") -> None:
        """A stage begins; total: its size in units, 0 where it is not known."""
        ...

    def advance(self, n: int) -> None:
        """So many more units of it are done; below 0 where some have to be done again."""
        ...

    def note(self, text: str) -> None:
        """Something to show beside the stage, in the place of what was noted before."""
        ...


class Silent:
    """Progress that nobody watches."""

    def begin(self, what: str, total: int, unit: str = "bytes") -> None:
        pass

    def advance(self, n: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass
