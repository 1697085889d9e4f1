"""Baselines: points of other formats and other runs, to be shown beside those of a sweep.

In files and JSON their `kind` is `peer`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from isotone.errors import InputError
from isotone.evaluation.frontier.results import FrontierPoint
from isotone.models.text import decoded

_NUMBERS = {
    "bits_per_weight": "a positive number",
    "perplexity": "a positive number, or null where it is not finite",
    "kl": "a number from 0 up, or null where it is not known",
}


def read_points(path: str | Path) -> list[dict[str, Any]]:
    """Read points that were measured elsewhere.

    Parameters
    ----------
    path : str or Path
        A UTF-8 file: one JSON object on each line, or one object with a list `points`. Each point
        has `family`, `label`, `bits_per_weight` and `perplexity`, which is null where it is not
        finite, and may have `kl`, likewise. Whatever else it holds is kept.

    Returns
    -------
    list of dict
        The points, with the kind `peer`. A dense model among them, as in a sweep's own file, is
        left out.

    Raises
    ------
    InputError
        If the file cannot be read, or if a point, whose line is then named, is not as above.
    """
    path = Path(path)
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; expected points") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; expected points as JSON") from error
    found = [_checked(point, where) for where, point in _objects(text, path)]
    return [{**point, "kind": "peer"} for point in found if point.get("kind") != "dense"]


def check_comparable(
    baselines: Sequence[Mapping[str, Any]], dense: FrontierPoint, *, tolerance: float = 0.005
) -> None:
    """Raise InputError for a point whose own dense perplexity is not that of this sweep.

    Parameters
    ----------
    baselines : sequence of mapping
        Points that were measured elsewhere. Only those with `reference_perplexity`, the perplexity
        of the dense model that they were measured beside, can be checked.
    dense : FrontierPoint
        The dense model of this sweep.
    tolerance : float
        The largest relative difference. The order in which floating point is summed moves
        perplexities far less, another text or context far more.

    Raises
    ------
    InputError
        If a point was measured on something else.
    """
    for baseline in baselines:
        own = baseline.get("reference_perplexity")
        expected = dense.perplexity
        if expected and _is_number(own) and abs(own / expected - 1) > tolerance:
            raise InputError(
                f"point {baseline['family']}, {baseline['label']}: was measured where the dense "
                f"model has a perplexity of {own:.3f}, and here it has {expected:.3f}; leave its "
                "file out, or sweep the same model with the same text, context and windows"
            )


def _objects(text: str, path: Path) -> Iterator[tuple[str, object]]:
    """Yield each point with its place in the file, for messages."""
    try:
        whole = _parsed(text)
    except ValueError:
        yield from _lines(text, path)
        return
    if not isinstance(whole, dict) or "points" not in whole:
        yield f"{path}: line 1", whole
    elif isinstance(whole["points"], list):
        for index, point in enumerate(whole["points"]):
            yield f"{path}: points[{index}]", point
    else:
        raise InputError(f"{path}: points is {whole['points']!r}; expected a list of points")


def _lines(text: str, path: Path) -> Iterator[tuple[str, object]]:
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in lines:
        try:
            yield f"{path}: line {number}", _parsed(line)
        except ValueError as error:
            # One object over many lines fails in its first line; the whole text says where.
            where = _broken_line(text) if number == lines[0][0] else number
            raise InputError(
                f"{path}: line {where} is not JSON; expected a point on each line, or one object "
                "with a list of points"
            ) from error


def _broken_line(text: str) -> int:
    try:
        _parsed(text)
    except json.JSONDecodeError as error:
        return error.lineno
    return 1


def _parsed(text: str) -> Any:  # noqa: ANN401 (JSON)
    """Parse JSON, with None for numbers that are not finite, as a collapsed perplexity may be."""
    return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)


def _finite(digits: str) -> float | None:
    return float(digits) if math.isfinite(float(digits)) else None


def _checked(point: object, where: str) -> dict[str, Any]:
    if not isinstance(point, dict):
        raise InputError(f"{where}: is not an object; expected a point")
    for key in ("family", "label"):
        if not isinstance(point.get(key), str) or not point[key].strip():
            raise InputError(f"{where}: {key} is {point.get(key)!r}; expected a name")
    for key, kind in _NUMBERS.items():
        value = point.get(key, None if key == "kl" else "missing")
        fits = _is_number(value) and (value > 0 or (value == 0 and key == "kl"))
        if not fits and not (value is None and key != "bits_per_weight"):
            raise InputError(f"{where}: {key} is {value!r}; expected {kind}")
    return {"kl": None, **point}


def _is_number(value: object) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max
