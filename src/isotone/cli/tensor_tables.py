"""What `isotone inspect --tensor` prints: protected weights, and how far centroids moved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from isotone.pipeline.inspect import TensorReport
from isotone.pipeline.movement import Movement


def tensor_parts(report: TensorReport) -> Iterator[str | Table]:
    """Yield a line and a table of the protected weights; the same of the centroids, if they moved.

    Protected weights are outliers that are stored exactly.
    """
    record = report.record
    yield record.name
    yield (
        f"{record.n_protected:,} of {record.n_weights:,} weights protected, "
        f"σ = {record.standard_deviation:.4g}"
    )
    if report.protected:
        yield _protected_table(report)
    if report.movement is not None:
        yield (
            f"moved by {report.movement.root_mean_square:.3f} of the mean spacing "
            f"(root mean square), {report.movement.farthest:.3f} at most"
        )
        yield _centroid_table(report.movement)


def centroid_rows(movement: Movement) -> list[dict[str, Any]]:
    """Describe every centroid; `moved` is in mean spacings of the codebook before."""
    n_matrices, k = movement.spacings.shape
    before, after = movement.before.reshape(-1, k), movement.after.reshape(-1, k)
    return [
        {
            "matrix": matrix,
            "rank": rank,
            "before": float(before[matrix, rank]),
            "after": float(after[matrix, rank]),
            "moved": float(movement.spacings[matrix, rank]),
        }
        for matrix in range(n_matrices)
        for rank in range(k)
    ]


def _centroid_table(movement: Movement) -> Table:
    table = Table()
    shown = ["rank", "before", "after", "moved, in spacings"]
    stack = len(movement.spacings) > 1
    for column in ["matrix", *shown] if stack else shown:
        table.add_column(column, justify="right")
    for row in centroid_rows(movement):
        cells = [f"{row['before']:.5g}", f"{row['after']:.5g}", f"{row['moved']:+.3f}"]
        table.add_row(*([str(row["matrix"])] if stack else []), str(row["rank"]), *cells)
    return table


def _protected_table(report: TensorReport) -> Table:
    table = Table()
    for column in ("index", "value", "standard deviations from the mean"):
        table.add_column(column, justify="right")
    for weight in report.protected:
        index = ", ".join(map(str, weight.index))
        table.add_row(f"[{index}]", f"{weight.value:.5g}", f"{weight.deviations:+.1f}")
    return table
