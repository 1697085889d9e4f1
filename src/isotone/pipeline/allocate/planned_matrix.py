"""One matrix of a plan, and how it is read from its source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from isotone.checkpoint.source.source import Source
from isotone.codec.packed import CHUNK_WEIGHTS
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.matrix import Matrix
from isotone.plan.tensors import Clustered

PIECE_WEIGHTS = 16 * CHUNK_WEIGHTS
"""The weights that are read, coded and written at a time: 8 MiB of bfloat16."""


@dataclass(frozen=True)
class PlannedMatrix:
    """A matrix to be clustered: a whole tensor, or one matrix of a stack.

    Attributes
    ----------
    plan : Clustered
        The tensor.
    index : int
        The position of the matrix in the stack; 0 for a tensor that is not a stack.
    """

    plan: Clustered
    index: int

    @property
    def start(self) -> int:
        """The position of its first weight in the flattened tensor."""
        return self.index * self.plan.layout.matrix_weights

    @property
    def key(self) -> tuple[str, int]:
        """The name of its tensor, and its position in the stack: what identifies the matrix."""
        return self.plan.tensor.name, self.index

    def read_from(self, source: Source) -> Matrix:
        """Return the matrix in the form in which it is clustered.

        Parameters
        ----------
        source : Source
            The model.

        Returns
        -------
        Matrix
            Reads the weights when they are asked for, in pieces of whole rows. A matrix that is a
            single piece is read once and held in memory.
        """
        plan = self.plan
        float_format = FloatFormat(plan.tensor.dtype)
        n_rows, n_columns = plan.matrix_shape
        step = max(1, PIECE_WEIGHTS // n_columns)

        def read(first: int) -> Bits:
            start = self.start + first * n_columns
            stop = self.start + min(first + step, n_rows) * n_columns
            return source.read(plan.tensor, start, stop).view(float_format.bits_dtype)

        def pieces() -> Iterator[Bits]:
            return (read(first) for first in range(0, n_rows, step))

        @cache
        def whole() -> tuple[Bits]:
            return (read(0),)

        return Matrix(
            rows=whole if step >= n_rows else pieces,
            shape=plan.matrix_shape,
            float_format=float_format,
            name=plan.tensor.name,
            n_chunks=plan.layout.chunks_a_matrix,
        )
