"""The interface through which long work reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives reports of how far long work has come."""

    def begin(self, what: str, total: int, unit: str = "bytes") -> None:
        """Begin a stage.

        Parameters
        ----------
        what : str
            Its name, such as "compressing".
        total : int
            Its size in units; 0 if that is not known.
        unit : str
            What is counted, in the plural.
        """
        ...

    def advance(self, n: int) -> None:
        """Count units of the stage as done.

        Parameters
        ----------
        n : int
            How many more; below 0 if some have to be done again.
        """
        ...

    def note(self, text: str) -> None:
        """Show a text beside the stage, in the place of the one before.

        Parameters
        ----------
        text : str
            A few words.
        """
        ...


class Silent(Progress):
    """Progress that shows nothing."""

    def begin(self, what: str, total: int, unit: str = "bytes") -> None:
        pass

    def advance(self, n: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass
