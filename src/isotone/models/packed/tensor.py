"""One weight tensor as packed ranks and values in memory, and how it is decoded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from isotone.core.values import Values
from isotone.models.packed.decoding import Decoding
from isotone.models.packed.kernels import decode_scales
from isotone.models.packed.outliers import ProtectedWeights
from isotone.models.packed.ranks import unpack_rows
from isotone.models.plugin.checkpoint_tensors import TORCH_DTYPES


class PackedTensor(Decoding, nn.Module):  # type: ignore[misc]
    """A weight tensor, or a stack of matrices, as packed ranks and the values they stand for.

    The ranks say which centroid each weight has, the codebook which value each centroid has. They
    are kept apart: the ranks are a buffer that nothing changes, the codebook a parameter that may
    be trained, edited or shared. Rows are those of each matrix, one matrix after the other; columns
    are all further axes. Protected weights are outliers that are kept exactly.

    Parameters
    ----------
    name : str
        The name of the tensor in the checkpoint.
    values : Values
        The codebook, scales and protected weights.
    packed_ranks : uint8 torch.Tensor, `[rows, row_bytes]`
        The ranks at a fixed width: see `isotone.models.packed.ranks`.
    bits : int
        The width of a rank, 1 to 8.

    Attributes
    ----------
    codebook : float32 parameter, `[k]` or `[matrices, k]`
        The centroids; frozen until somebody trains them.
    row_scale : buffer, `[rows]`, or None
        The scales of the rows as they are stored: codes or numbers.
    column_scale : buffer, `[matrices, columns]`, or None
        The scales of the columns, likewise.
    protected : ProtectedWeights or None
        The weights that are kept exactly.
    shape : torch.Size
        The shape of the weight.
    stored_dtype : torch.dtype
        The dtype that decoded weights are rounded to.
    dtype : torch.dtype
        The dtype that they are given back in.
    """

    packed_ranks: torch.Tensor
    row_scale: torch.Tensor | None
    column_scale: torch.Tensor | None
    protected: ProtectedWeights | None

    def __init__(self, name: str, values: Values, packed_ranks: torch.Tensor, bits: int) -> None:
        super().__init__()
        self.name, self.bits = name, bits
        self.shape = torch.Size(values.shape)
        self.float_format = values.float_format
        self.stored_dtype = self.dtype = TORCH_DTYPES[values.float_format.value]
        self.n_matrices = values.n_matrices
        self.n_rows = packed_ranks.shape[0]
        self.n_columns = math.prod(self.shape) // self.n_rows
        self.register_buffer("packed_ranks", packed_ranks)
        codebook = torch.from_numpy(np.array(values.codebook))
        self.codebook = nn.Parameter(codebook, requires_grad=False)
        self.register_buffer("row_scale", _buffer(values.row_scale, (self.n_rows,)))
        self.register_buffer(
            "column_scale", _buffer(values.column_scale, (self.n_matrices, self.n_columns))
        )
        self.protected = None
        if len(values.protected_index):
            patterns = np.array(values.protected_value)
            exact = torch.from_numpy(patterns.view(f"i{patterns.itemsize}"))
            self.protected = ProtectedWeights(
                values.protected_index, exact.view(self.stored_dtype), values.n_weights
            )

    def ranks(self) -> torch.Tensor:
        """Return the rank of each weight, unpacked: uint8 in the shape of the weight."""
        return unpack_rows(self.packed_ranks, self.n_columns, self.bits).reshape(self.shape)

    def all_scales(self, name: Literal["row_scale", "column_scale"]) -> torch.Tensor:
        """Return all scales of one side.

        Parameters
        ----------
        name : {"row_scale", "column_scale"}
            The side, which must have scales.

        Returns
        -------
        float32 torch.Tensor, `[rows]` or `[matrices, columns]`
            The scales.
        """
        return decode_scales(getattr(self, name).detach())

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Follow moves; a change of dtype changes `dtype`, and leaves what is stored as it is."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.device)).dtype

        def move(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)

    def extra_repr(self) -> str:
        """Return the name, the shape and the widths, for `print(model)`."""
        return f"{self.name}, {tuple(self.shape)}, k={self.codebook.shape[-1]}, dtype={self.dtype}"


def _buffer(scale: Any, shape: tuple[int, ...]) -> torch.Tensor | None:
    return None if scale is None else torch.from_numpy(np.array(scale)).view(shape)
