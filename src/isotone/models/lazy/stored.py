"""A tensor of a dense checkpoint that is read when it is needed, and not kept."""

from __future__ import annotations

from typing import Any

import torch

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source
from isotone.models.lazy.expression import Expression
from isotone.models.lazy.loading_tensor import Loading
from isotone.models.plugin.checkpoint_tensors import TORCH_DTYPES


class StoredWeight:
    """What a weight's expression leads to: see expression.Expression.

    name, shape: those of the checkpoint. dtype, device: of what a call gives.
    """

    def __init__(self, source: Source, tensor: TensorInfo) -> None:
        self._source, self._tensor = source, tensor
        self.name, self.shape = tensor.name, torch.Size(tensor.shape)
        self.dtype, self.device = TORCH_DTYPES[tensor.dtype], torch.device("cpu")

    def to(self, device: Any) -> StoredWeight:
        """Note where it is wanted."""
        self.device = torch.device(device)
        return self

    def __call__(self) -> torch.Tensor:
        """Read it; raises FormatError where that cannot be done."""
        stored = self._source.read(self._tensor, 0, self._tensor.n_weights)
        tensor = torch.from_numpy(stored).view(TORCH_DTYPES[self._tensor.dtype])
        return tensor.reshape(self.shape).to(device=self.device, dtype=self.dtype)


def stored_weights(source: Source) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint by name, for transformers' loader, and none of them read."""
    return {
        tensor.name: Loading(Expression.of(StoredWeight(source, tensor)))
        for tensor in source.tensors
    }
