"""Lookup tables that give each weight its rank, and say whether it is protected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.clustering.method import Assigned
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.histogram import order_keys


class LookupTable(Protocol):
    """Gives weights their ranks."""

    def assign(self, bits: Bits, ranks: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Write the rank of each weight, and return the positions of protected ones.

        Parameters
        ----------
        bits : uint16 or uint32 array, `[n]`
            Weights as bit patterns.
        ranks : uint8 array, `[n]`
            Receives their ranks.

        Returns
        -------
        int64 array, `[p]`
            Ascending positions of the protected weights among those given.
        """
        ...


def lookup_table(assigned: Assigned, float_format: FloatFormat) -> LookupTable:
    """Return a lookup table from a clustered histogram.

    Parameters
    ----------
    assigned : Assigned
        The clustered histogram.
    float_format : FloatFormat
        The format of the patterns that will be looked up.

    Returns
    -------
    LookupTable
        For any pattern of that format.
    """
    labels = labels_of(assigned)
    if float_format is FloatFormat.F32:
        return _SegmentTable.of(assigned.histogram.keys, labels)
    return PatternTable.of(assigned.histogram.keys, labels, float_format)


def labels_of(assigned: Assigned) -> NDArray[np.uint16]:
    """Return the label of each bin: its rank, and a mark if it is protected.

    Parameters
    ----------
    assigned : Assigned
        The clustered histogram.

    Returns
    -------
    uint16 array, `[n]`
        The rank in the low byte, and `_native.PROTECTED_LABEL` if the bin is protected.
    """
    marks = np.where(assigned.protected, _native.PROTECTED_LABEL, 0).astype(np.uint16)
    return assigned.ranks.astype(np.uint16) + marks


@dataclass(frozen=True)
class PatternTable:
    """A lookup table with one entry for each 16-bit pattern.

    Attributes
    ----------
    table : uint16 array, `[65536]`
        The label of each pattern, see `labels_of`.
    """

    table: NDArray[np.uint16]

    @classmethod
    def of(
        cls, keys: NDArray[np.uint32], labels: NDArray[np.uint16], float_format: FloatFormat
    ) -> PatternTable:
        """Return the table of labelled bins.

        Parameters
        ----------
        keys : uint32 array, `[n]`
            The order key of each bin's first value, ascending.
        labels : uint16 array, `[n]`
            The label of each bin.
        float_format : FloatFormat
            The format of the patterns, BF16 or F16.

        Returns
        -------
        PatternTable
            A pattern below all bins has the label of the first one.
        """
        pattern_keys = order_keys(float_format.upcast(np.arange(1 << 16, dtype=np.uint16)))
        at = np.searchsorted(keys, pattern_keys, side="right") - 1
        return cls(labels[np.maximum(at, 0)])

    def assign(self, bits: Bits, ranks: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Write the rank of each weight, and return the positions of protected ones.

        Parameters
        ----------
        bits, ranks
            See `LookupTable.assign`.

        Returns
        -------
        int64 array, `[p]`
            Ascending positions.
        """
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
