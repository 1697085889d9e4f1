"""A clustered weight as a module: what a layer of a model computes with.

Calling the module decodes the whole weight; nothing dense is kept afterwards. A faster kernel may
take the place of `forward`, `rows` or `linear` without anything else changing.
"""

from __future__ import annotations

import torch
from torch import nn

from isotone.checkpoint.compressed.manifest import ClusteredRecord
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.rate import rank_bits
from isotone.core.values import Values
from isotone.models.packed.gradient import DecodeWithGradient, LinearWithGradient
from isotone.models.packed.kernels import as_bytes
from isotone.models.packed.operators import arrays_of
from isotone.models.packed.ranks import pack_rows
from isotone.models.packed.tensor import PackedTensor


class ClusteredWeight(PackedTensor):
    """A packed tensor that layers compute with, and through which gradients flow.

    Gradients reach the codebook and the scales where those ask for them.
    """

    def forward(self) -> torch.Tensor:
        """Return the dense weight in `dtype`."""
        return self._decoded(None).view(self.shape)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Return chosen rows of a weight that is one matrix.

        Parameters
        ----------
        ids : integer torch.Tensor of any shape
            The rows, in any order, repeated or not.

        Returns
        -------
        torch.Tensor, `[*ids.shape, *shape[1:]]`
            The rows in `dtype`.
        """
        return self._decoded(ids.reshape(-1)).view(*ids.shape, *self.shape[1:])

    def matrix(self, number: int) -> torch.Tensor:
        """Return one matrix of a stack.

        Parameters
        ----------
        number : int
            The position of the matrix in the stack.

        Returns
        -------
        torch.Tensor, `shape[1:]`
            The matrix in `dtype`.
        """
        height = self.n_rows // self.n_matrices
        ids = torch.arange(number * height, (number + 1) * height, device=self.device)
        return self._decoded(ids).view(self.shape[1:])

    def linear(self, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return what `torch.nn.functional.linear` gives for the dense weight.

        Parameters
        ----------
        inputs : torch.Tensor, `[..., columns]`
            What the layer is given.
        bias : torch.Tensor, `[rows]`, optional
            What is added to each output.

        Returns
        -------
        torch.Tensor, `[..., rows]`
            The outputs.
        """
        if not self._wants_gradient() or self.n_matrices > 1:
            return nn.functional.linear(inputs, self(), bias)
        kind = inputs.device.type
        if torch.is_autocast_enabled(kind):
            inputs = inputs.to(torch.get_autocast_dtype(kind))
        outputs: torch.Tensor = LinearWithGradient.apply(inputs, *self._trained(), self)
        return outputs if bias is None else outputs + bias.to(outputs.dtype)

    def traced(self) -> torch.Tensor:
        """Return the dense weight as an operator that torch.compile can trace."""
        decoded: torch.Tensor = torch.ops.isotone.decode(None, *arrays_of(self))
        return decoded.view(self.shape)

    def traced_rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Return what `rows` returns, by an operator that torch.compile can trace.

        Parameters
        ----------
        ids : integer torch.Tensor of any shape
            The rows.

        Returns
        -------
        torch.Tensor, `[*ids.shape, *shape[1:]]`
            The rows in `dtype`.
        """
        decoded = torch.ops.isotone.decode(ids.reshape(-1), *arrays_of(self))
        rows: torch.Tensor = decoded.view(*ids.shape, *self.shape[1:])
        return rows

    def traced_linear(self, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return what `linear` returns, by an operator that torch.compile can trace.

        Parameters
        ----------
        inputs : torch.Tensor, `[..., columns]`
            What the layer is given.
        bias : torch.Tensor, `[rows]`, optional
            What is added to each output.

        Returns
        -------
        torch.Tensor, `[..., rows]`
            The outputs.
        """
        kind = inputs.device.type
        if self.dtype != inputs.dtype or torch.is_autocast_enabled(kind):
            return nn.functional.linear(inputs, self.traced(), bias)
        outputs: torch.Tensor = torch.ops.isotone.linear(inputs, bias, *arrays_of(self))
        return outputs

    def clustered_tensor(self) -> ClusteredTensor:
        """Return the same as plain data in NumPy, with the codebook as it is now.

        Notes
        -----
        The ranks take one byte for each weight.
        """
        protected = {}
        if self.protected is not None:
            exact = self.protected.value.cpu().contiguous()
            protected = {
                "protected_index": self.protected.positions().cpu().numpy(),
                "protected_value": as_bytes(exact).view(self.float_format.bits_dtype),
            }
        values = Values(
            shape=tuple(self.shape),
            float_format=self.float_format,
            codebook=self.codebook.detach().cpu().numpy().copy(),
            row_scale=None if self.row_scale is None else self.row_scale.cpu().numpy(),
            column_scale=None if self.column_scale is None else self.column_scale.cpu().numpy(),
            **protected,
        )
        return ClusteredTensor(values, self.ranks().cpu().numpy())

    def _decoded(self, rows: torch.Tensor | None) -> torch.Tensor:
        """Return some rows, all for None, as `decode` does but with gradients."""
        if self._wants_gradient():
            decoded: torch.Tensor = DecodeWithGradient.apply(*self._trained(), self, rows)
            return decoded
        return self.decode(rows)

    def _trained(self) -> tuple[torch.Tensor | None, ...]:
        """Return what can have a gradient."""
        return self.codebook, self.row_scale, self.column_scale

    def _wants_gradient(self) -> bool:
        return torch.is_grad_enabled() and any(
            tensor is not None and tensor.requires_grad for tensor in self._trained()
        )


def read_clustered(
    directory: CompressedDirectory, record: ClusteredRecord, bits: int | None = None
) -> ClusteredWeight:
    """Read a clustered tensor, chunk by chunk, in the form that stays in memory.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    record : ClusteredRecord
        The tensor's record in the manifest.
    bits : int, optional
        The width of a rank in memory; by default the least that k ranks need. 8 bits are the
        fastest to decode.

    Returns
    -------
    ClusteredWeight
        The tensor on the CPU.

    Raises
    ------
    FormatError
        If the stored arrays are damaged.
    """
    reader = directory.packed(record)
    values = directory.values(record, reader)
    bits = bits or rank_bits(record.k)
    n_rows = values.n_matrices * values.matrix_shape[0]
    runs = (reader.decode(chunk) for chunk, *_ in reader.spans())
    packed = pack_rows(runs, n_rows, record.n_weights // n_rows, bits)
    return ClusteredWeight(record.name, values, packed, bits)
