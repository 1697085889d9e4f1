"""The quantization method `isotone` of transformers: its quantizer, and how it is registered.

`from_pretrained` on a compressed directory finds `quant_method: "isotone"` in config.json and makes
an IsotoneQuantizer. By default (`residency="dense"`) the model that comes back is an ordinary one:
its weights were decoded while they were loaded, nothing in it knows of clusters any more, and
`save_pretrained` writes plain safetensors without a quantization_config. With
`quantization_config=IsotoneConfig(residency="packed")` the ranks stay packed in memory, see
`isotone.models.packed`. Importing this module registers the method with transformers;
`isotone.models.plugin.registration` says when that happens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.quantizers import auto as quantizers
from transformers.quantizers.base import HfQuantizer

from isotone.checkpoint.compressed.dense_folder import hold_dense_weights
from isotone.checkpoint.compressed.manifest import QUANT_METHOD, ClusteredRecord
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.checkpoint.source.weight_files import WEIGHTS_KEY
from isotone.errors import InputError
from isotone.models.lazy.stored import packed_tensor, unread_tensor
from isotone.models.packed.model import become_packed
from isotone.models.packed.modules import clustered_weights, install, warn_of_dense
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
    """What transformers calls while it loads a compressed directory.

    Parameters
    ----------
    quantization_config : IsotoneConfig
        The options of loading.
    **kwargs
        What transformers hands to every quantizer.

    Raises
    ------
    InputError
        If the model is a dense one.
    """

    quantization_config: IsotoneConfig

    def __init__(self, quantization_config: IsotoneConfig, **kwargs: Any) -> None:
        if not kwargs.get("pre_quantized", True):
            raise InputError(
                "the model is dense, and IsotoneConfig loads clustered ones; compress it first: "
                "isotone compress MODEL OUT, then load OUT"
            )
        super().__init__(quantization_config, **kwargs)
        self._files: list[str] | None = None
        self._tied: dict[str, str] = {}
        self._directory: CompressedDirectory | None = None
        self._tensors: dict[str, CheckpointTensor] = {}
        self._bytes_a_weight = 1.0
        self._model: Any = None
        intercept_loading(IsotoneQuantizer)

    @property
    def _is_packed(self) -> bool:
        return self.quantization_config.residency == "packed"

    def update_attn_implementation(self, config: Any) -> Any:
        """Change the config before weights are looked for: take isotone's notice out of it.

        This also settles the dtype of a config that names none, as for the dense model.

        Parameters
        ----------
        config : transformers.PretrainedConfig
            The model's config; is changed.

        Returns
        -------
        transformers.PretrainedConfig
            The same config.
        """
        _forget_notice(config)
        if getattr(config, "dtype", None) is None and self.quantization_config.dtype is not None:
            config.dtype = getattr(torch, self.quantization_config.dtype)
        return config

    update_tp_plan = update_attn_implementation  # where older versions let a quantizer see it

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **_: Any
    ) -> Any:
        self._files, self._tied = checkpoint_files, dict(model.all_tied_weights_keys)
        if self._is_packed and checkpoint_files:
            n_bytes = _weight_bytes(checkpoint_files)
            n_weights = sum(parameter.numel() for parameter in model.parameters())
            self._bytes_a_weight = n_bytes / max(n_weights, 1)
        return model

    def param_element_size(self, _model: Any, _name: str, param: Any) -> float:
        """Return how many bytes a weight takes in memory on average, for planning a device map.

        Parameters
        ----------
        param : torch.Tensor
            A parameter of the model on the meta device.

        Returns
        -------
        float
            The bytes of one element.
        """
        is_matrix = param.ndim > 1 and param.is_floating_point()
        return self._bytes_a_weight if self._is_packed and is_matrix else param.element_size()

    def state_dict(self, checkpoint_files: list[str] | None, load_config: Any) -> Any:
        """Return the tensors of the dense model by name, each decoded when it is indexed.

        An adapter that is loaded into a clustered model comes by here too, with files of its own.

        Parameters
        ----------
        checkpoint_files : list of str or None
            The shards that transformers is about to read.
        load_config : object
            What transformers knows of the loading.

        Returns
        -------
        dict of str to CheckpointTensor, or None
            The tensors; None if the files are not those of this model.

        Raises
        ------
        InputError
            If a packed model is to be split among processes, or parts of it go to disk.
        """
        if not checkpoint_files or checkpoint_files != self._files:
            return None
        if self._is_packed and load_config.device_mesh is not None:
            raise InputError("a packed model cannot be split among processes; load it dense")
        if hold_dense_weights(map(Path, checkpoint_files)):
            folder = Path(checkpoint_files[0]).parent
            if self.quantization_config.residency != "dense":
                raise InputError(
                    f"{folder}: its weights are dense; load them without IsotoneConfig"
                )
            return None
        self._directory = read_through(load_config, checkpoint_files)
        decode = _DECODE[self.quantization_config.residency]
        self._tensors = checkpoint_tensors(self._directory, decode, self._tied)
        return self._tensors

    def get_new_dtype(self, converter: Any, param: Any, dtype: torch.dtype | None) -> Any:
        """Return the dtype in which the loader will want a tensor, and tell the tensor.

        Parameters
        ----------
        converter : object
            How transformers converts the tensor.
        param : torch.Tensor or CheckpointTensor
            The tensor of the checkpoint.
        dtype : torch.dtype or None
            The dtype that was asked for.

        Returns
        -------
        torch.dtype or None
            The dtype.
        """
        wanted = super().get_new_dtype(converter, param, dtype)
        if isinstance(param, CheckpointTensor):
            param.wanted = wanted
        return wanted

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        if self._directory is None:
            return model  # its weights are dense
        setattr(model, DIRECTORY_ATTRIBUTE, self._directory.path)
        if self._is_packed:
            self._model = model
            install(model)
            become_packed(model)
            read = [tensor.record for tensor in self._tensors.values() if tensor.was_read]
            warn_of_dense(model, (r for r in read if isinstance(r, ClusteredRecord)))
        self._directory, self._tensors = None, {}
        return model

    def is_serializable(self, **_: Any) -> bool:
        """Return True: packed models save themselves, dense ones are ordinary models."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether transformers may train what is put on top of it (adapters): it may."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """Whether transformers may train the model itself: if its codebooks are to be trained.

        Packed weights cannot be, so otherwise its Trainer asks for adapters, as for any quantized
        model.
        """
        weights = [] if self._model is None else clustered_weights(self._model)
        return any(weight.codebook.requires_grad for weight in weights)


def _weight_bytes(checkpoint_files: list[str]) -> int:
    """Return the bytes of the files with arrays, those of a base directory among them.

    Where the hub's cache does not have the manifest yet, only the given files are counted.
    """
    directory = Path(checkpoint_files[0]).parent
    if (directory / MANIFEST_FILE).is_file():
        files = open_compressed(directory).shard_files
        return sum(record.n_bytes for _, record in files)
    return sum(Path(file).stat().st_size for file in checkpoint_files)


def _forget_notice(config: Any) -> None:
    """Drop what config.json says to readers that do not know isotone."""
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
        """Keep the caller's residency, which transformers would drop with a warning."""
        if isinstance(quantization_config_from_args, IsotoneConfig):
            merged = merge(quantization_config, None)
            if isinstance(merged, IsotoneConfig):
                merged.residency = quantization_config_from_args.residency
                return merged
        return merge(quantization_config, quantization_config_from_args)

    automatic.merge_quantization_configs = staticmethod(merge_with_residency)


_register()
