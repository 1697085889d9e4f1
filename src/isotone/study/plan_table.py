"""Reads a table of a TOML plan: every value is taken once and checked."""

from __future__ import annotations

import difflib
from typing import Any

from isotone.errors import InputError


class PlanTable:
    """A table of a TOML plan that knows where it is, and which of its keys were not taken yet.

    Parameters
    ----------
    content : dict
        The keys and values of the table.
    where : str
        The file and the table, as the beginning of messages.
    """

    def __init__(self, content: dict[str, Any], where: str) -> None:
        self._content, self.where = dict(content), where

    @property
    def keys(self) -> list[str]:
        """The keys that nothing has taken yet, in the order of the file."""
        return list(self._content)

    def take(self, key: str, kind: type, default: Any = None) -> Any:  # noqa: ANN401 (TOML)
        """Take a value of one type.

        Parameters
        ----------
        key : str
            The key of the value.
        kind : type
            The type of the value; a whole number is a float too.
        default : optional
            The value where the key is missing; None for a key that must be there.

        Returns
        -------
        object
            The value.

        Raises
        ------
        InputError
            If the key is missing without a default, or its value has another type.
        """
        value = self._content.pop(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            given = "is missing" if value is None else f"is {value!r}"
            expected = {str: "a string", int: "a whole number", float: "a number"}
            raise InputError(
                f"{self.where}: {key} {given}; expected {expected.get(kind, f'a {kind.__name__}')}"
            )
        return value

    def take_any(self, key: str, default: Any) -> Any:  # noqa: ANN401 (TOML)
        """Take a value of any type.

        Parameters
        ----------
        key : str
            The key of the value.
        default : object
            The value where the key is missing.

        Returns
        -------
        object
            The value, not checked.
        """
        return self._content.pop(key, default)

    def numbers(self, key: str, kind: type, default: tuple[Any, ...]) -> tuple[Any, ...]:
        """Take a list of values of one type, or one such value alone.

        Parameters
        ----------
        key : str
            The key of the values.
        kind : type
            The type of each value.
        default : tuple
            The values where the key is missing.

        Returns
        -------
        tuple
            The values.
        """
        value = self._content.pop(key, list(default))
        items = value if isinstance(value, list) else [value]
        return tuple(PlanTable({key: item}, self.where).take(key, kind) for item in items)

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Take a list of strings, or one alone.

        Parameters
        ----------
        key : str
            The key of the strings.
        default : tuple of str
            The strings where the key is missing.

        Returns
        -------
        tuple of str
            The strings.
        """
        return self.numbers(key, str, default)

    def choices(
        self,
        key: str,
        known: tuple[str, ...],
        default: tuple[str, ...] | None,
        *,
        single: bool = False,
    ) -> tuple[str, ...]:
        """Take strings of a known set.

        Parameters
        ----------
        key : str
            The key of the strings.
        known : tuple of str
            What the strings may be.
        default : tuple of str or None
            The strings where the key is missing; None for a key that must be there.
        single : bool
            Whether exactly one string is expected.

        Returns
        -------
        tuple of str
            The strings, one or more.

        Raises
        ------
        InputError
            If a string is not known, none is given, or several are given where one is expected.
        """
        found = self.texts(key, default or ())
        for text in found:
            if text not in known:
                raise InputError(f"{self.where}: {key} is {text!r}; expected {_named(text, known)}")
        if not found or (single and len(found) > 1):
            raise InputError(f"{self.where}: {key} is missing; expected one of {', '.join(known)}")
        return found

    def seeds(self) -> tuple[int, ...]:
        """Take the seeds: a list of them, or their number, which stands for 0, 1, and so on.

        Raises
        ------
        InputError
            If there is no seed, or one below 0.
        """
        given = self._content.get("seeds", 1)
        seeds: tuple[int, ...] = self.numbers("seeds", int, (1,))
        if not isinstance(given, list):
            seeds = tuple(range(seeds[0]))
        if not seeds or min(seeds) < 0:
            raise InputError(f"{self.where}: seeds is {given!r}; expected 1 or more, from 0 up")
        return seeds

    def table(self, key: str) -> PlanTable:
        """Take a table.

        Parameters
        ----------
        key : str
            The key of the table.

        Returns
        -------
        PlanTable
            The table; an empty one where the key is missing.
        """
        return PlanTable(self.take(key, dict, {}), f"{self.where}: [{key}]")

    def tables(self, key: str) -> list[PlanTable]:
        """Take an array of tables.

        Parameters
        ----------
        key : str
            The key of the array.

        Returns
        -------
        list of PlanTable
            The tables; none where the key is missing.
        """
        return [
            PlanTable(item if isinstance(item, dict) else {}, f"{self.where}: [[{key}]] {number}")
            for number, item in enumerate(self.take(key, list, []), 1)
        ]

    def refuse_rest(self) -> None:
        """Raise an error for a key that nothing took.

        Raises
        ------
        InputError
            If a key is left.
        """
        for key in self._content:
            raise InputError(f"{self.where}: {key!r} is unknown here; take it out")


def _named(text: str, known: tuple[str, ...]) -> str:
    """Return what a text was probably meant to be, or everything that it may be."""
    close = difflib.get_close_matches(text, known, 3)
    return " or ".join(close) if close else f"one of {', '.join(known)}"
