"""The quantization method `isotone` of transformers: its config and its quantizer.

`from_pretrained` on a compressed directory finds `quant_method: "isotone"` in config.json and makes
an IsotoneQuantizer. By default (`residency="dense"`) the model that comes back is an ordinary one:
its weights were decoded while they were loaded, nothing in it knows of clusters any more, and
`save_pretrained` writes plain safetensors without a quantization_config. With
`quantization_config=IsotoneConfig(residency="packed")` the indices stay packed in memory, see
packed_modules.py. Importing this module registers both; registration.py says when that happens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.quantizers import auto as quantizers
from transformers.quantizers.base import HfQuantizer

from isotone.checkpoint.compressed.config import WEIGHTS_KEY
from isotone.checkpoint.compressed.manifest import MANIFEST_FILE, QUANT_METHOD, ClusteredRecord
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.opening import open_compressed
from isotone.errors import InputError
from isotone.models.lazy.loading_tensor import packed_tensor, unread_tensor
from isotone.models.packed.model import become_packed
from isotone.models.packed.modules import install, warn_of_dense
from isotone.models.plugin.checkpoint_tensors import (
    CheckpointTensor,
    checkpoint_tensors,
    dense_tensor,
)
from isotone.models.plugin.config import UNREAD, IsotoneConfig
from isotone.models.plugin.loading import intercept_loading, read_through
from isotone.models.plugin.origin import DIRECTORY_ATTRIBUTE

_DECODE = {"dense": dense_tensor, "packed": packed_tensor, UNREAD: unread_tensor}


class IsotoneQuantizer(HfQuantizer):  # type: ignore[misc]
    """What transformers calls while it loads a compressed directory."""

    quantization_config: IsotoneConfig

    def __init__(self, quantization_config: IsotoneConfig, **kwargs: Any) -> None:
        """Raises InputError where the model is a dense one."""
        if not kwargs.get("pre_quantized", True):
            raise InputError(
                "the model is dense, and IsotoneConfig loads clustered ones; compress it first: "
                "isotone compress MODEL OUT, then load OUT"
            )
        super().__init__(quantization_config, **kwargs)
        self._files: list[str] | None = None
        self._directory: CompressedDirectory | None = None
        self._tensors: dict[str, CheckpointTensor] = {}
        self._bytes_a_weight = 1.0
        intercept_loading(IsotoneQuantizer)

    @property
    def _is_packed(self) -> bool:
        return self.quantization_config.residency == "packed"

    def update_attn_implementation(self, config: Any) -> Any:
        """Sees the config before its weights are looked for: takes isotone's notice away.

        Also settles the dtype of a config that names none, as for the dense model.
        """
        _forget_notice(config)
        if getattr(config, "dtype", None) is None and self.quantization_config.dtype is not None:
            config.dtype = getattr(torch, self.quantization_config.dtype)
        return config

    update_tp_plan = update_attn_implementation  # where older versions let a quantizer see it

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **_: Any
    ) -> Any:
        self._files = checkpoint_files
        if self._is_packed and checkpoint_files:
            n_bytes = _weight_bytes(checkpoint_files)
            n_weights = sum(parameter.numel() for parameter in model.parameters())
            self._bytes_a_weight = n_bytes / max(n_weights, 1)
        return model

    def param_element_size(self, _model: Any, _name: str, param: Any) -> float:
        """Bytes a weight takes in memory, on average, for whoever plans where to put it."""
        is_matrix = param.ndim > 1 and param.is_floating_point()
        return self._bytes_a_weight if self._is_packed and is_matrix else param.element_size()

    def state_dict(self, checkpoint_files: list[str] | None, load_config: Any) -> Any:
        """The dense tensors by name, each decoded when it is indexed; None for another model's.

        An adapter that is loaded into a clustered model comes by here too, with files of its own.
        """
        if not checkpoint_files or checkpoint_files != self._files:
            return None
        if self._is_packed and load_config.device_mesh is not None:
            raise InputError("a packed model cannot be split among processes; load it dense")
        self._directory = read_through(load_config, checkpoint_files)
        decode = _DECODE[self.quantization_config.residency]
        self._tensors = checkpoint_tensors(self._directory, decode)
        return self._tensors

    def get_new_dtype(self, converter: Any, param: Any, dtype: torch.dtype | None) -> Any:
        """The dtype in which the loader will want a tensor; tells the tensor."""
        wanted = super().get_new_dtype(converter, param, dtype)
        if isinstance(param, CheckpointTensor):
            param.wanted = wanted
        return wanted

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        assert self._directory is not None
        setattr(model, DIRECTORY_ATTRIBUTE, self._directory.path)
        if self._is_packed:
            install(model)
            become_packed(model)
            read = [tensor.record for tensor in self._tensors.values() if tensor.was_read]
            warn_of_dense(model, (r for r in read if isinstance(r, ClusteredRecord)))
        self._directory, self._tensors = None, {}
        return model

    def is_serializable(self, **_: Any) -> bool:
        """Yes: see packed_model.py for packed ones; dense ones are ordinary models."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Not as it stands: a packed model has nothing but codebooks to train."""
        return False


def _weight_bytes(checkpoint_files: list[str]) -> int:
    """Bytes of the files with arrays, those of the base of a codebook-only directory among them.

    The hub's cache may not have the manifest yet: the files that transformers names, then.
    """
    directory = Path(checkpoint_files[0]).parent
    if (directory / MANIFEST_FILE).is_file():
        files = open_compressed(directory).shard_files
        return sum(record.n_bytes for _, record in files)
    return sum(Path(file).stat().st_size for file in checkpoint_files)


def _forget_notice(config: Any) -> None:
    vars(config).pop(WEIGHTS_KEY, None)
    for name in getattr(config, "sub_configs", {}):
        part = getattr(config, name, None)
        if part is not None:
            _forget_notice(part)


def _register() -> None:
    """Add the plug-in to transformers' tables, once."""
    if QUANT_METHOD in quantizers.AUTO_QUANTIZER_MAPPING:
        return
    quantizers.register_quantization_config(QUANT_METHOD)(IsotoneConfig)
    quantizers.register_quantizer(QUANT_METHOD)(IsotoneQuantizer)
    automatic = quantizers.AutoHfQuantizer
    merge = automatic.merge_quantization_configs

    def merge_with_residency(
        quantization_config: Any, quantization_config_from_args: Any = None
    ) -> Any:
        """Let the caller's residency hold, which transformers would drop with a warning."""
        if isinstance(quantization_config_from_args, IsotoneConfig):
            merged = merge(quantization_config, None)
            if isinstance(merged, IsotoneConfig):
                merged.residency = quantization_config_from_args.residency
                return merged
        return merge(quantization_config, quantization_config_from_args)

    automatic.merge_quantization_configs = staticmethod(merge_with_residency)


_register()
