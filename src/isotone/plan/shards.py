"""The files of the output, and which tensors go into each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.plan.tensors import Clustered, Kept, TensorPlan, Tied

SHARD_BYTES = 1 << 30
"""The dense bytes that one shard of the output stands for. A shard is what one worker takes as one
task, and the work that is lost when a worker is killed; it is small enough for the shards of a
large model to be shared out evenly."""


@dataclass(frozen=True)
class Shard:
    """One file of the output.

    Attributes
    ----------
    name : str
        The name of the file.
    clustered : tuple of Clustered
        The tensors that are clustered, in the order of the source.
    kept : tuple of Kept
        The tensors that are stored bit for bit, in the order of the source.
    """

    name: str
    clustered: tuple[Clustered, ...]
    kept: tuple[Kept, ...]

    @property
    def n_bytes(self) -> int:
        """The bytes of its tensors before compression."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def tensors(self) -> list[TensorInfo]:
        """All tensors of the shard, clustered ones first."""
        return [*(item.tensor for item in self.clustered), *(item.tensor for item in self.kept)]


def plan_shards(plans: Sequence[TensorPlan], shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """Group tensors, in their order, into files.

    Parameters
    ----------
    plans : sequence of Clustered, Kept or Tied
        The tensors of a model. Tied ones are not stored and go into no file.
    shard_bytes : int, optional
        The dense bytes of one file at most; a larger tensor has a file of its own.

    Returns
    -------
    list of Shard
        The files, in order.
    """
    groups: list[list[Clustered | Kept]] = [[]]
    size = 0
    for plan in plans:
        if isinstance(plan, Tied):
            continue
        if groups[-1] and size + plan.tensor.n_bytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(plan)
        size += plan.tensor.n_bytes
    return [
        Shard(
            shard_name(i, len(groups)),
            tuple(plan for plan in group if isinstance(plan, Clustered)),
            tuple(plan for plan in group if isinstance(plan, Kept)),
        )
        for i, group in enumerate(groups)
    ]


def shard_name(i: int, n: int) -> str:
    """Return the file name of a shard, as transformers names them.

    Parameters
    ----------
    i : int
        The position of the shard, from 0.
    n : int
        The number of shards.

    Returns
    -------
    str
        The name.

    Examples
    --------
    >>> shard_name(0, 1), shard_name(2, 12)
    ('model.safetensors', 'model-00003-of-00012.safetensors')
    """
    return "model.safetensors" if n == 1 else f"model-{i + 1:05}-of-{n:05}.safetensors"
