"""One weight tensor of a model that stays clustered in memory.

The index (which rank each weight has) and the codebook (which value each rank stands for) are kept
apart: the index is a buffer that nothing changes, the codebook a parameter that may be trained,
edited or shared. Calling the module decodes; nothing dense is kept afterwards. A faster kernel may
take the place of `forward`, `rows` or `linear` without anything else changing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from isotone import _native
from isotone.checkpoint.compressed.manifest import ClusteredRecord
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.codec.packed import rank_bits
from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.scales.codes import SCALES
from isotone.core.values import Values
from isotone.models.packed.gradient import DecodeWithGradient, LinearWithGradient, gather
from isotone.models.packed.outliers import ProtectedWeights
from isotone.models.packed.ranks import pack_rows, unpack_rows
from isotone.models.plugin.checkpoint_tensors import TORCH_DTYPES

_BLOCK_WEIGHTS = 1 << 18
_GATHERS: dict[torch.dtype, tuple[Any, Any]] = {
    torch.bfloat16: (np.uint16, _native.gather16),
    torch.float16: (np.uint16, _native.gather16),
    torch.float32: (np.uint32, _native.gather32),
}


class ClusteredWeight(nn.Module):  # type: ignore[misc]
    """A weight tensor, or a stack of them, as packed ranks and codebooks.

    Rows are those of each matrix, one matrix after the other; columns are all further axes.

    index: [rows, row_bytes] uint8 buffer, see packed_ranks.py.
    codebook: parameter, float32 [k], or [matrices, k]; frozen until somebody trains it.
    row_scale: None, or a buffer [rows]. column_scale: None, or a buffer [matrices, columns]. As
        they are stored: codes or numbers, see scale_codes.py.
    protected: None, or the weights that are kept exactly.
    name: of the checkpoint's tensor. shape: of the weight. stored_dtype: that it is rounded to.
    dtype: that it is given back in.
    """

    index: torch.Tensor
    row_scale: torch.Tensor | None
    column_scale: torch.Tensor | None
    protected: ProtectedWeights | None

    def __init__(self, name: str, values: Values, index: torch.Tensor, bits: int) -> None:
        """values: everything but the assignments, which are not looked at."""
        super().__init__()
        self.name, self.bits = name, bits
        self.shape = torch.Size(values.shape)
        self.float_format = values.float_format
        self.stored_dtype = self.dtype = TORCH_DTYPES[values.float_format.value]
        self.n_matrices = values.n_matrices
        self.n_rows = index.shape[0]
        self.n_columns = math.prod(self.shape) // self.n_rows
        self.register_buffer("index", index)
        codebook = torch.from_numpy(np.array(values.codebook))
        self.codebook = nn.Parameter(codebook, requires_grad=False)
        self.register_buffer("row_scale", _scale(values.row_scale, (self.n_rows,)))
        self.register_buffer(
            "column_scale", _scale(values.column_scale, (self.n_matrices, self.n_columns))
        )
        self.protected = None
        if len(values.protected_index):
            bits_array = np.array(values.protected_value)
            exact = torch.from_numpy(bits_array.view(f"i{bits_array.itemsize}"))
            self.protected = ProtectedWeights(
                values.protected_index, exact.view(self.stored_dtype), values.n_weights
            )

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.index.device

    def forward(self) -> torch.Tensor:
        """The dense weight in `dtype`; gradients reach the codebook where it wants them."""
        return self._decoded(None).view(self.shape)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Chosen rows of an unstacked weight: ids of any shape -> [*ids, *shape[1:]]."""
        return self._decoded(ids.reshape(-1)).view(*ids.shape, *self.shape[1:])

    def matrix(self, number: int) -> torch.Tensor:
        """One matrix of a stack."""
        height = self.n_rows // self.n_matrices
        ids = torch.arange(number * height, (number + 1) * height, device=self.device)
        return self._decoded(ids).view(self.shape[1:])

    def linear(self, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """What torch.nn.functional.linear gives for the dense weight."""
        if not self._wants_gradient() or self.n_matrices > 1:
            return nn.functional.linear(inputs, self(), bias)
        kind = inputs.device.type
        if torch.is_autocast_enabled(kind):
            inputs = inputs.to(torch.get_autocast_dtype(kind))
        outputs: torch.Tensor = LinearWithGradient.apply(inputs, *self._trained(), self)
        return outputs if bias is None else outputs + bias.to(outputs.dtype)

    def ranks(self) -> torch.Tensor:
        """Each weight's rank, [*shape] uint8."""
        return unpack_rows(self.index, self.n_columns, self.bits).reshape(self.shape)

    def clustered_tensor(self) -> ClusteredTensor:
        """The same as plain data, in NumPy; the codebook as it is now. One byte a weight."""
        protected = {}
        if self.protected is not None:
            values = self.protected.value.cpu().contiguous()
            protected = {
                "protected_index": self.protected.positions().cpu().numpy(),
                "protected_value": _bytes(values).view(self.float_format.bits_dtype),
            }
        plain = Values(
            shape=tuple(self.shape),
            float_format=self.float_format,
            codebook=self.codebook.detach().cpu().numpy().copy(),
            row_scale=None if self.row_scale is None else self.row_scale.cpu().numpy(),
            column_scale=None if self.column_scale is None else self.column_scale.cpu().numpy(),
            **protected,
        )
        return ClusteredTensor(plain, self.ranks().cpu().numpy())

    def _decoded(self, rows: torch.Tensor | None) -> torch.Tensor:
        """[rows, columns]: all of them for None."""
        if self._wants_gradient():
            decoded: torch.Tensor = DecodeWithGradient.apply(*self._trained(), self, rows)
            return decoded
        return self.decode(rows)

    def _trained(self) -> tuple[torch.Tensor | None, ...]:
        """What can have a gradient."""
        return self.codebook, self.row_scale, self.column_scale

    def _wants_gradient(self) -> bool:
        return torch.is_grad_enabled() and any(
            tensor is not None and tensor.requires_grad for tensor in self._trained()
        )

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def decode(self, rows: torch.Tensor | None) -> torch.Tensor:
        """[rows, columns] in `dtype`, all for None; no gradient."""
        n_rows = self.n_rows if rows is None else len(rows)
        out = torch.empty(n_rows, self.n_columns, dtype=self.dtype, device=self.device)
        for part, matrix in self.blocks(rows):
            ids = part if rows is None else rows[part]
            ranks = unpack_rows(self.index[ids], self.n_columns, self.bits)
            self._look_up(ranks, ids, matrix, out[part])
        if self.protected is not None:
            _put(out.view(-1), *self.protected_in(rows))
        return out

    def blocks(self, rows: torch.Tensor | None) -> Iterator[tuple[slice, Any]]:
        """Runs of rows small enough to stay in a cache, each with its matrix (or matrices)."""
        height = self.n_rows // self.n_matrices
        step = max(1, _BLOCK_WEIGHTS // max(self.n_columns, 1))
        if self.device.type != "cpu":
            step *= 64  # a launch costs more than memory does
        if rows is not None:
            for start in range(0, len(rows), step):
                part = slice(start, min(start + step, len(rows)))
                yield part, 0 if self.n_matrices == 1 else rows[part] // height
            return
        for matrix in range(self.n_matrices):
            for start in range(matrix * height, (matrix + 1) * height, step):
                yield slice(start, min(start + step, (matrix + 1) * height)), matrix

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def factors(self, ids: Any, matrix: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors of some rows, ones where there are none: float32 [rows], and [columns].

        ids: of the rows. matrix: that they are of, or of each row; columns are [rows, columns]
        then.
        """
        n_rows = ids.stop - ids.start if isinstance(ids, slice) else len(ids)
        row = torch.ones(n_rows, device=self.device)
        if self.row_scale is not None:
            row = _factors(self.row_scale[ids])
        column = torch.ones(self.n_columns, device=self.device)
        if self.column_scale is not None:
            column = _factors(self.column_scale[matrix])
        return row, column

    def all_factors(self, name: Literal["row_scale", "column_scale"]) -> torch.Tensor:
        """The factors of all rows [rows], or columns [matrices, columns], as float32."""
        return _factors(getattr(self, name).detach())

    def _look_up(self, ranks: torch.Tensor, ids: Any, matrix: Any, out: torch.Tensor) -> None:
        """Ranks [rows, columns] to weights, written to out."""
        codebooks = self.codebook.view(self.n_matrices, -1)
        whole = isinstance(matrix, int)
        scaled = self.row_scale is not None or self.column_scale is not None
        on_cpu = self.device.type == "cpu" and ranks.is_contiguous()
        if scaled and whole and on_cpu and self.dtype == self.stored_dtype:
            self._multiply(ranks, ids, matrix, out)
            return
        if scaled or not whole:
            values = gather(codebooks[matrix], ranks)
            if scaled:
                row, column = self.factors(ids, matrix)
                values = values * row.unsqueeze(-1) * column
            out.copy_(self._narrow(values))
            return
        table = self._narrow(codebooks[matrix]).to(self.dtype)
        if on_cpu and self.dtype in _GATHERS:
            unsigned, look_up = _GATHERS[self.dtype]
            patterns, places = _bytes(table).view(unsigned), _bytes(out).view(unsigned)
            look_up(ranks.view(-1).numpy(), patterns, places)
        else:
            out.copy_(gather(table, ranks))

    def _multiply(self, ranks: torch.Tensor, ids: Any, matrix: int, out: torch.Tensor) -> None:
        """The same with factors, on the CPU and in the stored dtype: one pass of native code."""
        row, column = self.factors(ids, matrix)
        codebook = self.codebook.detach().view(self.n_matrices, -1)[matrix]
        arrays = (codebook.numpy(), row.numpy(), column.numpy())
        native = self.float_format.native
        _native.multiply(ranks.view(-1).numpy(), 0, *arrays, native, _bytes(out))

    def _narrow(self, values: torch.Tensor) -> torch.Tensor:
        """float32 to the stored dtype, finite values staying finite."""
        if self.stored_dtype is torch.float32:
            return values
        largest = torch.finfo(self.stored_dtype).max
        return values.clamp(-largest, largest).to(self.stored_dtype)

    def protected_in(self, rows: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Where protected weights lie among some rows (all for None), and their values."""
        assert self.protected is not None
        if rows is None:
            return self.protected.positions(), self.protected.value
        positions, entries = self.protected.in_rows(rows.long(), self.n_columns)
        return positions, self.protected.value[entries]

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Moves follow; a change of dtype changes `dtype`, and leaves what is stored alone."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.device)).dtype

        def move(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)

    def extra_repr(self) -> str:
        """Its shape and widths."""
        return f"{self.name}, {tuple(self.shape)}, k={self.codebook.shape[-1]}, dtype={self.dtype}"


def read_clustered(
    directory: CompressedDirectory, record: ClusteredRecord, bits: int | None = None
) -> ClusteredWeight:
    """Read a tensor, chunk by chunk, as it will stay in memory; raises FormatError.

    bits: that a rank takes there, the least that will do by default; 8 are the fastest to decode.
    """
    reader = directory.packed(record)
    values = directory.values(record, reader)
    bits = bits or rank_bits(record.k)
    shape = record.shape[1:] if values.codebook.ndim == 2 else record.shape
    n_rows = values.n_matrices * (shape[0] if shape else 1)
    runs = (reader.decode(chunk) for chunk, *_ in reader.spans())
    index = pack_rows(runs, n_rows, record.n_weights // n_rows, bits)
    return ClusteredWeight(record.name, values, index, bits)


def _put(out: torch.Tensor, positions: torch.Tensor, values: torch.Tensor) -> None:
    """Write some elements of a flat tensor; on the CPU NumPy does that faster than torch."""
    values = values.to(out.dtype)
    if out.device.type == "cpu" and out.dtype in _GATHERS:
        unsigned, _ = _GATHERS[out.dtype]
        _bytes(out).view(unsigned)[positions.numpy()] = _bytes(values).view(unsigned)
    else:
        out[positions] = values


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """A contiguous CPU tensor's bytes, shared."""
    array: NDArray[np.uint8] = tensor.view(-1).view(torch.uint8).numpy()
    return array


def _factors(scale: torch.Tensor) -> torch.Tensor:
    """Stored factors as float32."""
    if scale.dtype != torch.uint8:
        return scale.float()
    table = torch.from_numpy(SCALES).to(scale.device)
    return table[scale.long()]


def _scale(scale: Any, shape: tuple[int, ...]) -> torch.Tensor | None:
    return None if scale is None else torch.from_numpy(np.array(scale)).view(shape)
