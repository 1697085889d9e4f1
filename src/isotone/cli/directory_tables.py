"""What `isotone inspect` prints of a directory: kinds of matrices, tensors, and what was kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from isotone.cli.tables import plain_table
from isotone.pipeline.inspect import Inspection, TensorReport
from isotone.pipeline.kinds import KindSummary, kinds_of, summarise_kinds
from isotone.plan.layer_name import LayerName

_DIGITS = re.compile(r"(\d+)")
_INDENT = "  "
_LEAST_NAME_WIDTH = 20
_LEAST_COLUMNS = 2
_ENDLESS = 10**6
_MOST_KEPT_NAMES = 3


def kinds_table(inspection: Inspection, console: Console) -> Table:
    """Make a table of one row for each kind of matrix, as wide as the console at most."""
    numbers = ("matrices", "weights", "K", "bits", _error_title(inspection), "protected")
    reports = sorted(inspection.clustered, key=_natural_order)
    rows = {kind.kind: _kind_cells(kind) for kind in summarise_kinds(reports)}
    table, width = _fitting_table("kind", numbers, rows, console)
    for kind, cells in rows.items():
        table.add_row(shortened(kind, width), *cells[: len(table.columns) - 1])
    return table


def _kind_cells(kind: KindSummary) -> list[str]:
    k = f"{kind.k_min}" if kind.k_min == kind.k_max else f"{kind.k_min}–{kind.k_max}"
    return [
        f"{kind.n_matrices:,}",
        _count(kind.n_weights),
        k,
        f"{kind.bits_per_weight:.3f}",
        _error(kind.moved, kind.relative_distortion),
        f"{kind.n_protected:,}",
    ]


def tensors_table(inspection: Inspection, console: Console) -> Table:
    """Make a table of one row for each tensor, as wide as the console at most.

    Names stand whole where the console is wide enough. Otherwise they stand without `.weight`, the
    tensors of a layer below its name, and a name that is still too long is cut in the middle.
    """
    numbers = ("shape", "K", "bits", _error_title(inspection), "protected", "farthest")
    reports = sorted(inspection.clustered, key=_natural_order)
    rows = {report.record.name: _tensor_cells(report) for report in reports}
    table, width = _fitting_table("tensor", numbers, rows, console)
    grouped = max(map(len, rows), default=0) > width
    for layer, names in groupby(rows, key=_layer):
        if grouped and layer is not None:
            table.add_row(shortened(layer, width))
        for name in names:
            shown = _name_in_layer(name, layer, width) if grouped else name
            table.add_row(shown, *rows[name][: len(table.columns) - 1])
    return table


def _tensor_cells(report: TensorReport) -> list[str]:
    record, movement = report.record, report.movement
    moved = None if movement is None else movement.root_mean_square
    farthest = f"{abs(report.protected[0].deviations):.1f} σ" if report.protected else ""
    return [
        "×".join(map(str, record.shape)),
        str(record.k),
        f"{record.bits_per_weight:.3f}",
        _error(moved, record.relative_distortion),
        f"{record.n_protected:,}",
        farthest,
    ]


def _error_title(inspection: Inspection) -> str:
    """Title the column of the clustering's error, or of the distance from the base's codebooks."""
    return "error" if inspection.base is None else "moved"


def _error(moved: float | None, relative_distortion: float | None) -> str:
    if moved is not None:
        return f"{moved:.3f}"
    return "unknown" if relative_distortion is None else f"{relative_distortion:.2e}"


def _natural_order(report: TensorReport) -> list[tuple[bool, int, str]]:
    """Order tensors by name, with layer 2 before layer 10."""
    parts = _DIGITS.split(report.record.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _layer(name: str) -> str | None:
    place = LayerName.of(name)
    return None if place is None else f"{place.stack}.{place.layer}"


def _name_in_layer(name: str, layer: str | None, width: int) -> str:
    place = LayerName.of(name)
    if layer is None or place is None:
        return shortened(name.removesuffix(".weight"), width)
    return _INDENT + shortened(place.inner, width - len(_INDENT))


def _fitting_table(
    title: str, numbers: Sequence[str], rows: Mapping[str, Sequence[str]], console: Console
) -> tuple[Table, int]:
    """Return an empty table, and the characters that are left for names beside its numbers.

    Where that is too few for names to be read, the last columns are left out.
    """
    enough = min(_LEAST_NAME_WIDTH, max(map(len, rows), default=0))
    for n_columns in range(len(numbers), _LEAST_COLUMNS - 1, -1):
        table, measured = (plain_table((title,), numbers[:n_columns]) for _ in range(2))
        for cells in rows.values():
            measured.add_row("", *cells[:n_columns])
        wide = console.options.update(width=_ENDLESS)
        width = console.width - Measurement.get(console, wide, measured).maximum + len(title)
        if width >= enough:
            break
    return table, max(width, _LEAST_NAME_WIDTH)


def shortened(name: str, width: int) -> str:
    """Cut a name in the middle, between its words where they fit.

    Parameters
    ----------
    name : str
        The name of a tensor: words with dots between.
    width : int
        Most characters of the result.

    Returns
    -------
    str

    Examples
    --------
    >>> shortened("model.layers.0.self_attn.q_proj.weight", 30)
    'model.layers.0.…q_proj.weight'
    """
    if len(name) <= width:
        return name
    words = name.split(".")
    n_head, n_tail, found = 0, 1, f"…{words[-1]}"
    if len(found) > width:
        head = (width - 1) // 2
        return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"
    for more_tail in (False, True) * len(words):
        head, tail = n_head + (not more_tail), n_tail + more_tail
        longer = ".".join([*words[:head], "…" + ".".join(words[len(words) - tail :])])
        if head + tail < len(words) and len(longer) <= width:
            n_head, n_tail, found = head, tail, longer
    return found


def _count(n: int) -> str:
    """Write a number of weights with three digits and a unit."""
    amount = float(n)
    for unit in ("", " k", " M"):
        if amount < 999.5:
            return f"{amount:.3g}{unit}"
        amount /= 1000
    return f"{amount:,.3g} G"


def kept_lines(inspection: Inspection, width: int) -> Iterator[str]:
    """Say which tensors were kept as they are, by reason, with a few names; `--json` has them all.

    Parameters
    ----------
    inspection : Inspection
    width : int
        Most characters of a line.

    Yields
    ------
    str
        A line of text.
    """
    kinds = kinds_of([record.name for record in inspection.kept])
    groups: dict[str, dict[str, list[str]]] = {}
    for record in inspection.kept:
        how = "kept as it is" if record.decoded_hash is None else "kept, and changed since"
        reason = f"tied to {record.tied_to}" if record.tied_to else f"{how}, {record.reason}"
        groups.setdefault(reason, {}).setdefault(kinds[record.name], []).append(record.name)
    for reason, of_kind in groups.items():
        shown = [
            names[0] if len(names) == 1 else f"{kind} ({len(names)} tensors)"
            for kind, names in of_kind.items()
        ]
        more = sum(len(names) for names in list(of_kind.values())[_MOST_KEPT_NAMES:])
        shown = shown[:_MOST_KEPT_NAMES] + ([f"and {more} more"] if more else [])
        yield from _wrapped(f"{reason}:", shown, width)


def _wrapped(start: str, items: Sequence[str], width: int) -> Iterator[str]:
    """Write items with commas between them in lines; none is broken, and a long one is cut."""
    line = start
    for at, item in enumerate(items):
        text = shortened(item, width - len(_INDENT) - 1) + ("," if at + 1 < len(items) else "")
        if len(line) + 1 + len(text) > width:
            yield line
            line = f"{_INDENT}{text}"
        else:
            line = f"{line} {text}"
    yield line
