"""The JSON files of a model directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from isotone.checkpoint.files.lfs import refuse_pointer
from isotone.errors import FormatError


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds a table.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        The table; empty if there is no such file.

    Raises
    ------
    FormatError
        If the file cannot be read, or holds no JSON table.
    """
    content = _load(path, {})
    if not isinstance(content, dict):
        raise FormatError(f"{path}: is not a JSON table")
    return content


def read_json_list(path: Path) -> list[Any]:
    """Return the content of a JSON file that holds a list.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list
        The list; empty if there is no such file.

    Raises
    ------
    FormatError
        If the file cannot be read, or holds no JSON list.
    """
    content = _load(path, [])
    if not isinstance(content, list):
        raise FormatError(f"{path}: is not a JSON list")
    return content


def _load(path: Path, nothing: Any) -> Any:  # noqa: ANN401 (JSON)
    try:
        content = path.read_bytes()
        refuse_pointer(path, content)
        return json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        return nothing
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not valid JSON: {error}") from error
