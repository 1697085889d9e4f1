"""Points of other formats and other runs, to stand beside those of a sweep."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from isotone.errors import InputError
from isotone.evaluation.frontier.results import Point

_NUMBERS = {
    "bits_per_weight": "a positive number",
    "perplexity": "a positive number, or null where it is not finite",
    "kl": "a number from 0 up, or null where it is not known",
}


def read_points(path: str | Path) -> list[dict[str, Any]]:
    """Points that were measured elsewhere, of kind `peer`: JSON lines, or JSON with `points`.

    Each is an object with `family`, `label`, `bits_per_weight` and `perplexity`, which is null
    where it is not finite; `kl` (null likewise) and whatever else it holds comes along. A dense
    model among them (as in a sweep's own file) is left out. Raises InputError, naming the line.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; expected points") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; expected points as JSON") from error
    found = [_checked(point, where) for where, point in _objects(text, path)]
    return [{**point, "kind": "peer"} for point in found if point.get("kind") != "dense"]


def check_comparable(
    peers: Sequence[Mapping[str, Any]], dense: Point, *, tolerance: float = 0.005
) -> None:
    """Raise InputError for a point whose own dense perplexity is not that of this sweep.

    Only points that say `reference_perplexity` can be told. tolerance: relative; the order in
    which floating point is summed moves perplexities far less, another text or context far more.
    """
    for peer in peers:
        own = peer.get("reference_perplexity")
        expected = dense.perplexity
        if expected and _is_number(own) and abs(own / expected - 1) > tolerance:
            raise InputError(
                f"point {peer['family']}, {peer['label']}: was measured where the dense model has "
                f"a perplexity of {own:.3f}, and here it has {expected:.3f}; leave its file out, "
                "or sweep the same model with the same text, context and windows"
            )


def _objects(text: str, path: Path) -> Iterator[tuple[str, object]]:
    """Each point with where it stands."""
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
            # One object over many lines breaks in its first; where it is broken, the whole tells.
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
    """JSON with null for numbers that are not finite, as which a collapsed perplexity may come."""
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
