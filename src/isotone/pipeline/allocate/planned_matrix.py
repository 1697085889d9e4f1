"""One matrix of a plan, and how it is read from its source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from isotone.checkpoint.source.source import Source
from isotone.codec.packed import CHUNK_WEIGHTS
from isotone.core.fit import Matrix
from isotone.core.float_format import Bits, FloatFormat
from isotone.plan.tensors import Clustered

PIECE_WEIGHTS = 16 * CHUNK_WEIGHTS
"""Weights that are read, coded and written as one: 8 MiB of bfloat16."""


@dataclass(frozen=True)
class PlannedMatrix:
    """A tensor to be clustered, or one matrix of its stack."""

    plan: Clustered
    index: int

    @property
    def start(self) -> int:
        """Its first weight in the flattened tensor."""
        return self.index * self.plan.layout.matrix_weights

    def read_from(self, source: Source) -> Matrix:
        """The matrix as `fit` reads it. One that is a single piece is read once and held."""
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
