"""Takes the coded pieces of one tensor in order, writes its ranks, and gathers all other parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from isotone.checkpoint.compressed.manifest import ClusteredRecord
from isotone.checkpoint.files.safetensors_writer import ShardWriter
from isotone.codec.arrays import (
    CODEBOOK,
    PACKED,
    PROTECTED_INDEX,
    PROTECTED_VALUE,
    scale_arrays,
)
from isotone.codec.outlier_index import encode_positions
from isotone.codec.packed import ALIGNMENT
from isotone.core.fit import Fit
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.rate import entropy_bits
from isotone.core.stack import stack_values
from isotone.core.values import Values
from isotone.plan.tensors import Clustered


@dataclass(frozen=True)
class Piece:
    """Consecutive weights of one matrix, coded.

    Attributes
    ----------
    chunks : list of uint8 array
        The coded ranks, chunk by chunk.
    entries : list of int
        The entry of each chunk in the header of the packed array.
    source : uint8 array
        The dense bytes of the weights before.
    restored : uint16 or uint32 array, `[n]`
        The weights that decoding will give, as bit patterns.
    squared_error : float
        The sum of the squared differences between the two.
    positions : int64 array, `[p]`
        The positions of protected weights in the flattened tensor.
    values : uint16 or uint32 array, `[p]`
        The protected weights, as bit patterns.
    """

    chunks: list[NDArray[np.uint8]]
    entries: list[int]
    source: NDArray[np.uint8]
    restored: Bits
    squared_error: float
    positions: NDArray[np.int64]
    values: Bits


@dataclass(frozen=True)
class SmallArray:
    """An array that is written behind all packed arrays, for the sake of alignment.

    Attributes
    ----------
    name : str
        Its name in the shard.
    tag : str
        Its dtype, as safetensors names it.
    array : array
        Its content.
    """

    name: str
    tag: str
    array: NDArray[Any]


class TensorSink:
    """One tensor that is being written.

    After `finish`, attribute `record` has its record for the manifest, and `small` the arrays that
    remain to be written.

    Parameters
    ----------
    plan : Clustered
        The tensor.
    file : str
        The name of the shard.
    writer : ShardWriter
        Writes the shard; the packed array of the tensor is begun at once.
    """

    record: ClusteredRecord

    def __init__(self, plan: Clustered, file: str, writer: ShardWriter) -> None:
        self.small: list[SmallArray] = []
        self._plan, self._file, self._writer = plan, file, writer
        self._fits: list[Fit] = []
        self._entries: list[int] = []
        self._source_hash, self._decoded_hash = blake3(), blake3()
        self._distortion = 0.0
        self._last_protected = -1
        self._indexes: list[NDArray[np.uint16]] = []
        self._values: list[Bits] = []
        writer.begin(plan.tensor.name + PACKED, "U8")
        writer.write(bytes(plan.layout.header_bytes))

    def add_fit(self, fit: Fit) -> None:
        """Begin the next matrix of the tensor.

        Parameters
        ----------
        fit : Fit
            The clustered matrix.
        """
        self._fits.append(fit)

    def add_piece(self, piece: Piece) -> None:
        """Write the next weights of the tensor.

        Parameters
        ----------
        piece : Piece
            The coded weights.
        """
        for chunk in piece.chunks:
            self._writer.write(chunk)
        self._entries += piece.entries
        self._source_hash.update(piece.source.data)
        self._decoded_hash.update(piece.restored.view(np.uint8).data)
        self._distortion += piece.squared_error
        if len(piece.positions):
            self._indexes.append(encode_positions(piece.positions, self._last_protected))
            self._values.append(piece.values)
            self._last_protected = int(piece.positions[-1])

    def finish(self) -> None:
        """Close the packed array, and set `record` and `small`."""
        values = self._stacked_values()
        packed_bytes = self._close_packed(values.k)
        name, tag = self._plan.tensor.name, self._plan.tensor.dtype
        self.small.append(SmallArray(name + CODEBOOK, "F32", values.codebook))
        self.small += [
            SmallArray(name + suffix, *scale) for suffix, scale in scale_arrays(values).items()
        ]
        if self._indexes:
            self.small += [
                SmallArray(name + PROTECTED_INDEX, "U16", np.concatenate(self._indexes)),
                SmallArray(name + PROTECTED_VALUE, tag, np.concatenate(self._values)),
            ]
        stored = packed_bytes + sum(small.array.nbytes for small in self.small)
        self.record = self._describe(values.k, stored)

    def _stacked_values(self) -> Values:
        """Return codebooks and scales of all matrices; protected weights are written apart."""
        plan = self._plan
        k = max(len(fit.codebook) for fit in self._fits) if plan.n_matrices > 1 else None
        return stack_values(self._fits, plan.tensor.shape, FloatFormat(plan.tensor.dtype), k=k)

    def _close_packed(self, k: int) -> int:
        layout = self._plan.layout_for(k)
        self._writer.overwrite(0, layout.header(self._entries))
        self._writer.align(ALIGNMENT)
        return self._writer.end()

    def _describe(self, k: int, stored_bytes: int) -> ClusteredRecord:
        tensor, moments = self._plan.tensor, [fit.moments for fit in self._fits]
        n = sum(each.n_weights for each in moments)
        mean = sum(each.n_weights * each.mean for each in moments) / n
        squares = sum(each.squares_about_mean for each in moments)
        between = sum(each.n_weights * (each.mean - mean) ** 2 for each in moments)
        return ClusteredRecord(
            name=tensor.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            file=self._file,
            n_matrices=self._plan.n_matrices,
            k=k,
            scale=self._scale_name(),
            n_protected=sum(fit.n_protected for fit in self._fits),
            stored_bytes=stored_bytes,
            entropy_bits=sum(entropy_bits(fit.counts) for fit in self._fits) / n,
            distortion=self._distortion,
            relative_distortion=self._distortion / squares if squares else 0.0,
            optimality_gap=sum(fit.optimality_bound for fit in self._fits),
            mean=mean,
            standard_deviation=float(np.sqrt((squares + between) / n)),
            source_hash=self._source_hash.hexdigest(),
            decoded_hash=self._decoded_hash.hexdigest(),
        )

    def _scale_name(self) -> str:
        if any(fit.column_scale is not None for fit in self._fits):
            return "both"
        return "row" if any(fit.row_scale is not None for fit in self._fits) else "none"
