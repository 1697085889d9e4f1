"""From a clustering of points back to a rank, and a mark if protected, for each weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.clustering.method import Assigned
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.histogram import order_keys

_PROTECTED = 256


class LookupTable(Protocol):
    """Gives weights their ranks."""

    def assign(self, bits: Bits, ranks: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Write the rank of each weight ([n] -> [n]); return the positions of protected ones."""
        ...


def lookup_table(assigned: Assigned, float_format: FloatFormat) -> LookupTable:
    """A labeller from clustered points; float_format: of what it will be given."""
    labels = labels_of(assigned)
    if float_format is FloatFormat.F32:
        return _SegmentTable.of(assigned.points.keys, labels)
    return PatternTable.of(assigned.points.keys, labels, float_format)


def labels_of(assigned: Assigned) -> NDArray[np.uint16]:
    """For each point its rank, and a mark if it is protected."""
    marks = np.where(assigned.protected, _PROTECTED, 0).astype(np.uint16)
    return assigned.ranks.astype(np.uint16) + marks


@dataclass(frozen=True)
class PatternTable:
    """One label for each of the 65,536 patterns: a rank, and a mark if protected."""

    table: NDArray[np.uint16]

    @classmethod
    def of(
        cls, keys: NDArray[np.uint32], labels: NDArray[np.uint16], float_format: FloatFormat
    ) -> PatternTable:
        pattern_keys = order_keys(float_format.upcast(np.arange(1 << 16, dtype=np.uint16)))
        at = np.searchsorted(keys, pattern_keys, side="right") - 1
        return cls(labels[np.maximum(at, 0)])

    def assign(self, bits: Bits, ranks: NDArray[np.uint8]) -> NDArray[np.int64]:
        return _native.assign16(bits, self.table, ranks)


@dataclass(frozen=True)
class _SegmentTable:
    """Runs of order keys with one label, found through a table of their top 16 bits."""

    cells: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    labels: NDArray[np.uint16]

    @classmethod
    def of(cls, keys: NDArray[np.uint32], labels: NDArray[np.uint16]) -> _SegmentTable:
        changes = np.flatnonzero(np.diff(labels, prepend=labels[:1] ^ 1))
        starts = keys[changes]
        starts[0] = 0
        cell_keys = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
        cells = np.searchsorted(starts, cell_keys, side="right") - 1
        return cls(cells.astype(np.uint32), starts, labels[changes])

    def assign(self, bits: Bits, ranks: NDArray[np.uint8]) -> NDArray[np.int64]:
        return _native.assign32(bits, self.cells, self.starts, self.labels, ranks)
