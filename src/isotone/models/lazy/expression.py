"""How a weight is computed from clustered weights: one of them as it is, or steps on several.

The steps are those that transformers' loader takes when a checkpoint is laid out otherwise than the
model: it stacks the matrices of experts, fuses projections, transposes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from isotone.checkpoint.compressed.manifest import ClusteredRecord
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.models.packed.weight import ClusteredWeight, read_clustered
from isotone.models.plugin.checkpoint_tensors import TORCH_DTYPES

Decode = Callable[[Any], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Expression:
    """A weight as it will be computed: one clustered weight, or a step on others.

    leaf: the ClusteredWeight (or UnreadWeight), where it is one. call: else, the step.
    part: which of its results, where it has several. shape, dtype, device: of the result.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    leaf: Any = None
    call: Call | None = None
    part: int | None = None

    @classmethod
    def of(cls, leaf: Any) -> Expression:
        """The source that is one clustered weight."""
        return cls(leaf.shape, leaf.dtype, leaf.device, leaf=leaf)

    def leaves(self) -> Iterator[Any]:
        """The clustered weights it is made of, in order, maybe repeatedly."""
        if self.leaf is not None:
            yield self.leaf
        else:
            assert self.call is not None
            for source in self.call.sources():
                yield from source.leaves()

    def evaluate(self, decode: Decode | None = None) -> torch.Tensor:
        """The dense tensor; decode: what to take for each clustered weight, itself by default."""
        return self._evaluate(decode or (lambda leaf: leaf()), {})

    def _evaluate(self, decode: Decode, done: dict[int, Any]) -> torch.Tensor:
        """done: what the steps so far gave, for those that several results share."""
        if self.leaf is not None:
            return decode(self.leaf)
        assert self.call is not None
        if id(self.call) not in done:
            done[id(self.call)] = self.call.run(lambda source: source._evaluate(decode, done))
        result = done[id(self.call)]
        tensor: torch.Tensor = result if self.part is None else result[self.part]
        return tensor


@dataclass(frozen=True, eq=False)
class Call:
    """A function of torch and its arguments, some of them sources."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def run(self, stand_in: Callable[[Expression], Any]) -> Any:
        """Call it, with something in the place of each source."""
        arguments = replaced(self.arguments, Expression, stand_in)
        return self.function(*arguments, **replaced(self.keywords, Expression, stand_in))

    def sources(self) -> Iterator[Expression]:
        """The sources among the arguments, in order."""
        found: list[Expression] = []
        replaced((self.arguments, self.keywords), Expression, found.append)
        yield from found


class UnreadWeight:
    """A clustered tensor of a directory that went through the loader by name only."""

    def __init__(self, directory: CompressedDirectory, record: ClusteredRecord) -> None:
        self._directory, self._record = directory, record
        self.name, self.shape = record.name, torch.Size(record.shape)
        self.dtype, self.device = TORCH_DTYPES[record.dtype], torch.device("cpu")
        self._held: ClusteredWeight | None = None

    def to(self, device: Any) -> UnreadWeight:
        """Note where it would be."""
        self.device = torch.device(device)
        return self

    def read(self) -> ClusteredWeight:
        """Read it now, to where and to the dtype in which the loader wanted it."""
        return self._held or self._read(None)

    def hold(self) -> ClusteredWeight:
        """Read it, a byte for each rank, and give the same one each time from here on."""
        self._held = self._held or self._read(8)
        return self._held

    def _read(self, bits: int | None) -> ClusteredWeight:
        weight = read_clustered(self._directory, self._record, bits)
        weight.dtype = self.dtype
        moved: ClusteredWeight = weight.to(self.device)
        return moved


def replaced(value: Any, kind: type[Any], replace: Callable[[Any], Any]) -> Any:
    """The value with everything of a kind replaced, inside of lists, tuples and dicts too."""
    if isinstance(value, kind):
        return replace(value)
    if isinstance(value, (list, tuple)):
        items = [replaced(item, kind, replace) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: replaced(item, kind, replace) for key, item in value.items()}
    return value
