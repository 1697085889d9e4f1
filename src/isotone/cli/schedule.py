"""The schedule of `isotone compress --dry-run`, as lines and a table, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table

from isotone.cli.console import size
from isotone.cli.tables import plain_table
from isotone.pipeline.schedule import Schedule

_MOST_ROWS = 16


def schedule_details(schedule: Schedule) -> dict[str, Any]:
    """Describe a schedule for `--json`."""
    return {**asdict(schedule), "imbalance": schedule.imbalance}


def schedule_report(schedule: Schedule) -> Iterator[str | Table]:
    """Yield what is to be done, the busiest nodes, and the time that all of it takes."""
    yield (
        f"{schedule.n_clustered:,} of {schedule.n_tensors:,} tensors are clustered, "
        f"{schedule.n_weights / 1e9:,.2f} billion weights; {size(schedule.dense_bytes)} in "
        f"{schedule.n_shards:,} shards, the largest {size(schedule.largest_shard_bytes)}"
    )
    table = plain_table((), ("node", "shards", "dense", "seconds"))
    by_time = sorted(enumerate(schedule.shares), key=lambda pair: -pair[1].seconds)
    for node, share in by_time[:_MOST_ROWS]:
        table.add_row(f"{node}", f"{share.n_shards}", size(share.n_bytes), f"{share.seconds:,.1f}")
    yield table
    if len(by_time) > _MOST_ROWS:
        yield f"and {len(by_time) - _MOST_ROWS} nodes that are no busier"
    yield (
        f"done after {schedule.makespan_seconds:,.1f} s; a node is busy for "
        f"{schedule.mean_seconds:,.1f} s on average, the busiest {schedule.imbalance:.1%} longer"
    )
