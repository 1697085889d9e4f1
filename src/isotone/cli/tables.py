"""Tables and lines that several commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.table import Table

from isotone.cli.console import size
from isotone.models.prefix import shown
from isotone.pipeline.summary import CompressSummary

_MOST_NAMES = 3
_MANY = 0.5  # share of calibrated weights below which a user is told


def pairs_table(rows: Mapping[str, str]) -> Table:
    """Make a table of labels and their values."""
    table = Table(show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for label, value in rows.items():
        table.add_row(label, value)
    return table


def plain_table(names: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    """Make an empty table without a frame: columns of names at the left, of numbers at the right.

    Names wrap between words; numbers never wrap.
    """
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 0, 0, 1))
    for column in names:
        table.add_column(column)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def first_names(names: Sequence[str]) -> str:
    """List the first few names, and say how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f", and {more} more" if more > 0 else "")


def summary_table(summary: CompressSummary) -> Table:
    """Make a table of the totals of a compressed directory."""
    distortion = "not known: codebooks were changed since"
    if summary.relative_distortion is not None:
        distortion = f"{summary.relative_distortion:.3e}"
    rows = {
        "matrices clustered": f"{summary.n_tensors:,}, {summary.n_kept:,} tensors kept as they are",
        "weights": f"{summary.n_weights:,}, {summary.coverage:.2%} of the model",
        "bits per weight": f"{summary.bits_per_weight:.3f}",
        "relative distortion": distortion,
        "protected weights": f"{summary.n_protected:,}",
        "size before": size(summary.source_bytes),
        "size after": _size_after(summary),
    }
    if summary.calibration is not None and "bos" in summary.calibration:
        rows["calibration windows begin with"] = shown(summary.calibration["bos"])
    if summary.base_bytes:
        rows["changed"] = f"{summary.n_changed:,} tensors; all else is in the base"
    if summary.calibration is not None and "share" in summary.calibration:
        rows["calibrated"] = f"{summary.calibration['share']:.0%} of the linear weights"
    if summary.skipped:
        rows["left out"] = first_names(summary.skipped)
    if summary.seconds:
        rate = summary.source_bytes / summary.seconds
        rows["time"] = f"{summary.seconds:.1f} s, {size(rate)}/s"
        rows["peak memory"] = size(summary.peak_rss_bytes)
    return pairs_table(rows)


def _size_after(summary: CompressSummary) -> str:
    ratio = summary.source_bytes / summary.output_bytes
    after = f"{size(summary.output_bytes)}, {ratio:.2f} times smaller"
    return f"{after}, {size(summary.base_bytes)} of it the base" if summary.base_bytes else after


def left_out_lines(summary: CompressSummary) -> list[str]:
    """Say which files of the model did not go along, and why."""
    return [f"left out {name}: {reason}" for name, reason in summary.left_out.items()]


def fallback_lines(summary: CompressSummary) -> list[str]:
    """Say which matrices were not calibrated as usual, by reason; `--json` names all of them."""
    if summary.calibration is None:
        return []
    reasons: Mapping[str, Sequence[str]] = summary.calibration["fallbacks"]
    share = summary.calibration.get("share", 1.0)
    few = [f"only {share:.0%} of the weights of linear layers are calibrated"]
    return [
        *(few if share < _MANY else []),
        *whole_model_lines(summary.calibration.get("whole_model")),
    ] + [f"not calibrated, {reason}: {first_names(names)}" for reason, names in reasons.items()]


def whole_model_lines(reason: str | None) -> list[str]:
    """Say why calibration held the whole model in memory at once, if it did."""
    if reason is None:
        return []
    return [f"the whole model was in memory, not layer by layer: {reason}"]
