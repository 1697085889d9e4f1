"""What a directory holds, as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from isotone.cli.console import size
from isotone.core.movement import Movement
from isotone.pipeline.inspect import Inspection, TensorReport
from isotone.pipeline.summary import CompressSummary


def inspection_details(inspection: Inspection) -> dict[str, Any]:
    """A whole directory for `--json`, its totals aside."""
    return {
        "tensors": [_row(report) for report in inspection.clustered],
        "kept": [asdict(record) for record in inspection.kept],
        "base": None if inspection.base is None else str(inspection.base),
    }


def tensor_details(report: TensorReport) -> dict[str, Any]:
    """One tensor for `--json`."""
    centroids = None if report.movement is None else _centroids(report.movement)
    protected = [asdict(weight) for weight in report.protected]
    return _row(report) | {"protected": protected, "centroids": centroids}


def _row(report: TensorReport) -> dict[str, Any]:
    record, movement = report.record, report.movement
    farthest = abs(report.protected[0].deviations) if report.protected else None
    return asdict(record) | {
        "bits_per_weight": record.bits_per_weight,
        "farthest_deviations": farthest,
        "moved": None if movement is None else movement.root_mean_square,
        "moved_farthest": None if movement is None else movement.farthest,
    }


def _centroids(movement: Movement) -> list[dict[str, Any]]:
    """Every centroid; moved: in gaps of the codebook that it comes from."""
    n_matrices, k = movement.gaps.shape
    before, after = movement.before.reshape(-1, k), movement.after.reshape(-1, k)
    return [
        {
            "matrix": matrix,
            "rank": rank,
            "before": float(before[matrix, rank]),
            "after": float(after[matrix, rank]),
            "moved": float(movement.gaps[matrix, rank]),
        }
        for matrix in range(n_matrices)
        for rank in range(k)
    ]


def summary_table(title: str, summary: CompressSummary) -> Table:
    """The totals of a directory."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="dim")
    table.add_column(justify="right")
    ratio = summary.source_bytes / summary.output_bytes
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
        "size after": f"{size(summary.output_bytes)}, {ratio:.2f} times smaller",
    }
    if summary.base_bytes:
        rows["changed"] = f"{summary.n_changed:,} tensors; all else is in the base"
        rows["size after"] += f", {size(summary.base_bytes)} of it the base"
    if summary.skipped:
        rows["left out"] = ", ".join(summary.skipped)
    if summary.seconds:
        rate = summary.source_bytes / summary.seconds
        rows["time"] = f"{summary.seconds:.1f} s, {size(rate)}/s"
        rows["peak memory"] = size(summary.peak_rss_bytes)
    for label, value in rows.items():
        table.add_row(label, value)
    return table


def inspection_table(inspection: Inspection) -> Table:
    """One row a tensor: the error of clustering, or how far codebooks are from those of a base."""
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("tensor", overflow="fold", min_width=20)
    error = "error" if inspection.base is None else "moved"
    for column in ("shape", "K", "bits", error, "protected", "farthest"):
        table.add_column(column, justify="right", no_wrap=True)
    for report in inspection.clustered:
        record = report.record
        farthest = f"{abs(report.protected[0].deviations):.1f} σ" if report.protected else ""
        table.add_row(
            record.name,
            "×".join(map(str, record.shape)),
            str(record.k),
            f"{record.bits_per_weight:.3f}",
            _error(report),
            f"{record.n_protected:,}",
            farthest,
        )
    return table


def _error(report: TensorReport) -> str:
    if report.movement is not None:
        return f"{report.movement.root_mean_square:.3f}"
    error = report.record.relative_distortion
    return "unknown" if error is None else f"{error:.2e}"


def kept_lines(inspection: Inspection) -> list[str]:
    """What was kept as it is, by reason, with a few names of each; `--json` has them all."""
    names: dict[str, list[str]] = {}
    for kept in inspection.kept:
        how = "kept as it is" if kept.decoded_hash is None else "kept, and changed since"
        reason = f"tied to {kept.tied_to}" if kept.tied_to else f"{how}, {kept.reason}"
        names.setdefault(reason, []).append(kept.name)
    return [
        f"{reason}: {', '.join(found[:3])}" + (f", and {len(found) - 3} more" * (len(found) > 3))
        for reason, found in names.items()
    ]


def fallback_lines(summary: CompressSummary) -> list[str]:
    """What was not calibrated as usual, by reason; `--json` has them all."""
    if summary.calibration is None:
        return []
    reasons: dict[str, list[str]] = summary.calibration["fallbacks"]
    return whole_model_lines(summary.calibration.get("whole_model")) + [
        f"not calibrated, {reason}: {', '.join(names[:3])}"
        + (f", and {len(names) - 3} more" * (len(names) > 3))
        for reason, names in reasons.items()
    ]


def whole_model_lines(reason: str | None) -> list[str]:
    """Why calibrating had the whole model in memory, if it had."""
    return (
        [] if reason is None else [f"the whole model was in memory, not layer by layer: {reason}"]
    )


def tensor_tables(report: TensorReport) -> list[Table]:
    """The protected weights of a tensor, and where its centroids were and are."""
    tables = [_protected_table(report)]
    if report.movement is not None:
        tables.append(_centroid_table(report.movement))
    return tables


def _centroid_table(movement: Movement) -> Table:
    table = Table(
        title=f"moved by {movement.root_mean_square:.3f} of a gap (root mean square), "
        f"{movement.farthest:.3f} at most",
        title_justify="left",
    )
    shown = ["rank", "before", "after", "moved, in gaps"]
    stack = len(movement.gaps) > 1
    for column in ["matrix", *shown] if stack else shown:
        table.add_column(column, justify="right")
    for row in _centroids(movement):
        cells = [f"{row['before']:.5g}", f"{row['after']:.5g}", f"{row['moved']:+.3f}"]
        table.add_row(*([str(row["matrix"])] if stack else []), str(row["rank"]), *cells)
    return table


def _protected_table(report: TensorReport) -> Table:
    record = report.record
    table = Table(
        title=f"{record.name}: {record.n_protected:,} of {record.n_weights:,} weights protected, "
        f"σ = {record.standard_deviation:.4g}",
        title_justify="left",
    )
    for column in ("index", "value", "standard deviations from the mean"):
        table.add_column(column, justify="right")
    for weight in report.protected:
        index = ", ".join(map(str, weight.index))
        table.add_row(f"[{index}]", f"{weight.value:.5g}", f"{weight.deviations:+.1f}")
    return table
