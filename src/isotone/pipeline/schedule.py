"""Predict how the work of compressing a model would be shared out, without reading weights."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isotone.checkpoint.source.weight_files import CONFIG_FILE, INDEX_SUFFIX
from isotone.errors import InputError
from isotone.models.open_source import open_source, refuse_unfit
from isotone.plan.job import JobPlan, plan_job
from isotone.plan.settings import Selection
from isotone.plan.shards import Shard

NODE_BYTES_PER_SECOND = 1e9
"""The dense bytes per second that a node is assumed to read and compress: a 10 Gbit/s link."""

CORE_BYTES_PER_SECOND = 0.2e9
"""The dense bytes of bfloat16 that a core compresses per second; measured, see docs/scaling.md."""

_MOST_NODES = 100_000


@dataclass(frozen=True)
class Share:
    """The work of one node.

    Attributes
    ----------
    n_shards : int
        The number of shards that it would compress.
    n_bytes : int
        Their dense bytes.
    seconds : float
        The time that this would take.
    """

    n_shards: int
    n_bytes: int
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """What compressing a model would take on a number of nodes.

    Attributes
    ----------
    n_tensors : int
        The number of tensors that are stored.
    n_clustered : int
        The number of tensors that are clustered.
    n_weights : int
        The number of weights in clustered tensors.
    dense_bytes : int
        The dense bytes of all tensors that are stored.
    n_shards : int
        The number of shards of the output.
    largest_shard_bytes : int
        The dense bytes of the largest shard.
    shares : tuple of Share
        The work of each node.
    makespan_seconds : float
        The time until the last node is done, which is no shorter than the time that one core takes
        for the largest shard.
    mean_seconds : float
        The mean time of the nodes.
    """

    n_tensors: int
    n_clustered: int
    n_weights: int
    dense_bytes: int
    n_shards: int
    largest_shard_bytes: int
    shares: tuple[Share, ...]
    makespan_seconds: float
    mean_seconds: float

    @property
    def imbalance(self) -> float:
        """By how much the time of the busiest node exceeds the mean, relative to the mean."""
        return max(share.seconds for share in self.shares) / self.mean_seconds - 1.0


def plan_schedule(
    model: str | Path,
    selection: Selection,
    n_nodes: int = 1,
    node_bytes_per_second: float = NODE_BYTES_PER_SECOND,
) -> Schedule:
    """Plan the compression of a model, and share its shards out over nodes.

    Shards are given out as the workers of a cluster take them: the largest first, each to the node
    that is free first.

    Parameters
    ----------
    model : str or Path
        A model as `compress` takes it, or a directory with a config.json and no weights.
    selection : Selection
        Which tensors are clustered, and how.
    n_nodes : int
        The number of nodes, 1 to 100,000.
    node_bytes_per_second : float
        The dense bytes per second that a node reads and compresses.

    Returns
    -------
    Schedule
        The times and the share of each node.

    Raises
    ------
    InputError
        If an argument is not allowed, or the model cannot be read.
    FormatError
        If a file of the model is damaged.

    References
    ----------
    Graham, "Bounds on multiprocessing timing anomalies", 1969: list scheduling with the largest
    tasks first takes at most 4/3 of the shortest possible time.
    """
    if not 1 <= n_nodes <= _MOST_NODES:
        raise InputError(f"nodes is {n_nodes}; expected 1 to {_MOST_NODES}")
    if not node_bytes_per_second > 0:
        rate = node_bytes_per_second / 1e9
        raise InputError(f"node rate is {rate:g} GB/s; expected more than 0")
    plan = _plan(model, selection)
    shares = _shared_out(plan.shards, n_nodes, node_bytes_per_second)
    largest = max(shard.n_bytes for shard in plan.shards)
    longest = largest / min(CORE_BYTES_PER_SECOND, node_bytes_per_second)
    return Schedule(
        n_tensors=len(plan.tensors) - len(plan.tied),
        n_clustered=len(plan.clustered),
        n_weights=sum(clustered.tensor.n_weights for clustered in plan.clustered),
        dense_bytes=sum(shard.n_bytes for shard in plan.shards),
        n_shards=len(plan.shards),
        largest_shard_bytes=largest,
        shares=tuple(shares),
        makespan_seconds=max(longest, *(share.seconds for share in shares)),
        mean_seconds=sum(share.seconds for share in shares) / n_nodes,
    )


def _plan(model: str | Path, selection: Selection) -> JobPlan:
    """Plan a model by its headers, or by its shapes where there is a config and no weights."""
    path = Path(model)
    weights = ("*.safetensors", f"*{INDEX_SUFFIX}")
    only_config = (path / CONFIG_FILE).is_file() and not any(
        any(path.glob(pattern)) for pattern in weights
    )
    if only_config:
        from isotone.models.shapes import Shapes

        return plan_job(Shapes(path), selection, tied_to={})  # a tied tensor is one parameter
    source = open_source(model)
    refuse_unfit(source, model)
    return plan_job(source, selection)


def _shared_out(shards: Sequence[Shard], n_nodes: int, rate: float) -> list[Share]:
    free = [(0, 0, node) for node in range(n_nodes)]  # bytes, shards
    for n_bytes in sorted((shard.n_bytes for shard in shards), reverse=True):
        done, n_shards, node = heapq.heappop(free)
        heapq.heappush(free, (done + n_bytes, n_shards + 1, node))
    by_node = sorted(free, key=lambda entry: entry[2])
    return [Share(n_shards, n_bytes, n_bytes / rate) for n_bytes, n_shards, _ in by_node]
