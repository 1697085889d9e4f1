"""Records made of JSON that may hold anything: types, shapes and names are checked.

A manifest's digest shows that nobody changed it by accident; it does not show that isotone wrote
it. The functions here raise KeyError, TypeError or ValueError, which `read_sealed` turns into a
FormatError that names the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar

from isotone.checkpoint.files.tensor_info import DTYPE_BYTES

Content = TypeVar("Content")

_TYPES = {
    "str": str,
    "str | None": str | None,
    "int": int,
    "float": int | float,
    "float | None": int | float | None,
}


def parse_record(kind: type[Content], content: dict[str, Any]) -> Content:
    """Make a record of a JSON table.

    Parameters
    ----------
    kind : type
        The dataclass of the record.
    content : dict
        Its fields; `shape`, where the record has one, as a list.

    Returns
    -------
    record
        An instance of `kind`.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a field is missing, unknown, of another type, or no shape or dtype.
    """
    if "shape" in kind.__annotations__:
        content = {**content, "shape": tuple(content["shape"])}
        if content["dtype"] not in DTYPE_BYTES:
            raise ValueError(f"dtype {content['dtype']!r}")
        if not all(type(axis) is int and axis >= 0 for axis in content["shape"]):
            raise ValueError(f"shape {content['shape']}")
    record = kind(**content)
    check_types(record)
    return record


def check_types(record: Any) -> None:  # noqa: ANN401 (any dataclass)
    """Check that the fields of text and of numbers hold text and numbers.

    Parameters
    ----------
    record : dataclass
        Any record.

    Raises
    ------
    TypeError
        If a field holds something else.
    """
    for field in fields(record):
        value = getattr(record, field.name)
        if not isinstance(value, _TYPES.get(str(field.type), object)):
            raise TypeError(f"{field.name} is {value!r}")


def check_unique(names: Iterable[str]) -> None:
    """Check that no name is given twice.

    Parameters
    ----------
    names : iterable of str
        Any names.

    Raises
    ------
    ValueError
        If a name is given twice.
    """
    given = list(names)
    if len(set(given)) != len(given):
        raise ValueError("a name is given twice")


def check_file_names(names: Iterable[str]) -> None:
    """Check that names are those of different files inside the directory.

    Names with a dot in front are refused as well, because isotone keeps its own files there.

    Parameters
    ----------
    names : iterable of str
        Paths relative to the directory.

    Raises
    ------
    ValueError
        If a name is given twice, leads out of the directory, or is hidden.
    """
    given = list(names)
    check_unique(given)
    for name in given:
        parts = name.split("/")
        if not name or any(part.startswith(".") or not part for part in parts):
            raise ValueError(f"{name!r} is not the name of a file in the directory")
