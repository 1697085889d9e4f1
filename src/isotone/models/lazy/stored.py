"""Weights that are still on disk: the leaves of expressions that are read when they are needed.

transformers' loader is given these in the place of dense tensors, so a model can be loaded without
reading it: to run one layer after the other, or to learn where each tensor ends up.
"""

from __future__ import annotations

from typing import Any

import torch

from isotone.checkpoint.compressed.manifest import ClusteredRecord, Record
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source
from isotone.models.lazy.expression import Expression
from isotone.models.lazy.loading_tensor import Loading
from isotone.models.packed.weight import ClusteredWeight, read_clustered
from isotone.models.plugin.checkpoint_tensors import TORCH_DTYPES


class StoredWeight:
    """A tensor of a dense checkpoint that is read whenever it is called, and not kept.

    Parameters
    ----------
    source : Source
        The open checkpoint.
    tensor : TensorInfo
        The tensor.
    """

    def __init__(self, source: Source, tensor: TensorInfo) -> None:
        self._source, self._tensor = source, tensor
        self.name, self.shape = tensor.name, torch.Size(tensor.shape)
        self.dtype, self.device = TORCH_DTYPES[tensor.dtype], torch.device("cpu")

    def to(self, device: Any) -> StoredWeight:
        """Note the device to read it to.

        Parameters
        ----------
        device : torch.device or str
            The device.

        Returns
        -------
        StoredWeight
            Itself.
        """
        self.device = torch.device(device)
        return self

    def __call__(self) -> torch.Tensor:
        """Read the tensor; raises FormatError if it cannot be read."""
        stored = self._source.read(self._tensor, 0, self._tensor.n_weights)
        tensor = torch.from_numpy(stored).view(TORCH_DTYPES[self._tensor.dtype])
        return tensor.reshape(self.shape).to(device=self.device, dtype=self.dtype)


class UnreadWeight:
    """A clustered tensor that went through transformers' loader by name only.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    record : ClusteredRecord
        The tensor's record in its manifest.
    """

    def __init__(self, directory: CompressedDirectory, record: ClusteredRecord) -> None:
        self._directory, self._record = directory, record
        self.name, self.shape = record.name, torch.Size(record.shape)
        self.dtype, self.device = TORCH_DTYPES[record.dtype], torch.device("cpu")
        self._held: ClusteredWeight | None = None

    def to(self, device: Any) -> UnreadWeight:
        """Note the device that the loader wants it on.

        Parameters
        ----------
        device : torch.device or str
            The device.

        Returns
        -------
        UnreadWeight
            Itself.
        """
        self.device = torch.device(device)
        return self

    def __call__(self) -> torch.Tensor:
        """Decode the weight, where the loader looks at values: to compare tied weights."""
        return self.read().forward()

    def read(self) -> ClusteredWeight:
        """Read the weight, to the device and in the dtype that the loader wanted."""
        return self._held or self._read(None)

    def hold(self) -> ClusteredWeight:
        """Read the weight with a byte for each rank; give the same object from here on."""
        self._held = self._held or self._read(8)
        return self._held

    def _read(self, bits: int | None) -> ClusteredWeight:
        weight = read_clustered(self._directory, self._record, bits)
        weight.dtype = self.dtype
        moved: ClusteredWeight = weight.to(self.device)
        return moved


def stored_weights(source: Source) -> dict[str, torch.Tensor]:
    """Return every tensor of a dense checkpoint for transformers' loader, none of them read.

    Parameters
    ----------
    source : Source
        The open checkpoint.

    Returns
    -------
    dict of str to Loading
        The tensors by name.
    """
    return {
        tensor.name: Loading(Expression.of(StoredWeight(source, tensor)))
        for tensor in source.tensors
    }


def packed_tensor(
    directory: CompressedDirectory, record: Record, _dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Read a clustered tensor for transformers' loader, in the form that stays in memory.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    record : ClusteredRecord
        The tensor's record in its manifest.

    Returns
    -------
    Loading
        The packed tensor.

    Raises
    ------
    FormatError
        If the stored arrays are damaged.
    """
    assert isinstance(record, ClusteredRecord)
    loading: Loading = Loading(Expression.of(read_clustered(directory, record)))
    return loading


def unread_tensor(
    directory: CompressedDirectory, record: Record, _dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return a clustered tensor that goes through transformers' loader without being read.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    record : ClusteredRecord
        The tensor's record in its manifest.

    Returns
    -------
    Loading
        The tensor, its leaf an UnreadWeight.
    """
    assert isinstance(record, ClusteredRecord)
    loading: Loading = Loading(Expression.of(UnreadWeight(directory, record)))
    return loading
