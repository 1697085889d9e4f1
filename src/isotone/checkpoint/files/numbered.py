"""Files that are numbered as parts of one set, such as `model-00003-of-00012.safetensors`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Self

_NUMBERED = re.compile(
    r"(.+)([-_.])(\d{1,9})([-_]of[-_])(\d{1,9})((?!\d).*\.(?:safetensors|gguf))", re.I
)
_MOST_NAMED = 4  # of the files that a message names


@dataclass(frozen=True)
class NumberedName:
    """The name of a file that counts the files of its set.

    Attributes
    ----------
    prefix, between, suffix : str
        What stands before the number, between the number and the total, and after the total.
    number, total : int
        Which file of the set it is, from 1 or from 0, and how many there are.
    n_digits : int
        The digits of the number as it is written.
    """

    prefix: str
    number: int
    between: str
    total: int
    suffix: str
    n_digits: int

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read a file name.

        Parameters
        ----------
        name : str
            The name, of a safetensors or GGUF file.

        Returns
        -------
        NumberedName or None
            None if the name counts no files.

        Examples
        --------
        >>> NumberedName.parse("model-00003-of-00012.safetensors").number
        3
        """
        found = _NUMBERED.fullmatch(name)
        if found is None:
            return None
        before, separator, number, of, total, suffix = found.groups()
        between = of + total
        return cls(before + separator, int(number), between, int(total), suffix, len(number))

    @property
    def set_key(self) -> tuple[str, str, str]:
        """What the names of one set have in common."""
        return self.prefix, self.between, self.suffix

    def name_of(self, number: int) -> str:
        """Return the name of another file of the set.

        Parameters
        ----------
        number : int
            Which one.

        Returns
        -------
        str
            Its name.
        """
        return f"{self.prefix}{number:0{self.n_digits}}{self.between}{self.suffix}"


def one_of_each_set(names: Iterable[str]) -> list[str]:
    """Return the first name of each set: a file by itself, or files that are numbered alike.

    Parameters
    ----------
    names : iterable of str
        Names of files.

    Returns
    -------
    list of str
        In the order of `names`.
    """
    first: dict[object, str] = {}
    for name in names:
        numbered = NumberedName.parse(name)
        first.setdefault(numbered.set_key if numbered else name, name)
    return list(first.values())


def same_set(name: str, names: Iterable[str]) -> list[str]:
    """Return the files of the set that a file is in.

    Parameters
    ----------
    name : str
        The name of the file.
    names : iterable of str
        The names to choose from.

    Returns
    -------
    list of str
        In ascending order; only `name` if it is not numbered.
    """
    own = NumberedName.parse(name)
    if own is None:
        return [name]
    others = {each: NumberedName.parse(each) for each in names}
    return sorted(each for each, one in others.items() if one and one.set_key == own.set_key)


def missing_names(names: Iterable[str]) -> tuple[list[str], int]:
    """Return which files are missing, by the numbers in the names of those that are there.

    Parameters
    ----------
    names : iterable of str
        The names of files, of any number of sets.

    Returns
    -------
    missing : list of str
        The names of missing files, at most four of each set.
    n_missing : int
        How many are missing in all.
    """
    sets: dict[tuple[str, str, str], list[NumberedName]] = {}
    for name in names:
        numbered = NumberedName.parse(name)
        if numbered is not None:
            sets.setdefault(numbered.set_key, []).append(numbered)
    missing: list[str] = []
    n_missing = 0
    for files in sets.values():
        numbers = {file.number for file in files}
        first = 0 if 0 in numbers else 1
        wanted = range(first, first + files[0].total)
        n_missing += len(wanted) - sum(number in wanted for number in numbers)
        absent = (files[0].name_of(number) for number in wanted if number not in numbers)
        missing += islice(absent, _MOST_NAMED)
    return missing, n_missing


def listed(names: Iterable[str], n_names: int) -> str:
    """Return names for a message: a few, and how many more there are.

    Parameters
    ----------
    names : iterable of str
        The names, or the first of them.
    n_names : int
        How many there are in all.

    Returns
    -------
    str
        Such as `a, b and 3 more`.
    """
    few = list(islice(names, _MOST_NAMED))
    more = n_names - len(few)
    return f"{', '.join(few)} and {more} more" if more else ", ".join(few)
