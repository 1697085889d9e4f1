"""The one place where transformers' loading of weights is changed.

transformers has no public way for a quantization method to supply the tensors of a checkpoint, so
`PreTrainedModel._load_pretrained_model`, which takes either files or a state dict, is wrapped: for
a compressed directory it is given a state dict. The wrapper keeps no state, and is put in place
when the first clustered model is loaded; a process that loads none runs an unchanged transformers.
"""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

import transformers

from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.errors import InputError

_METHOD = "_load_pretrained_model"
_PARAMETERS = ["model", "state_dict", "checkpoint_files", "load_config"]
_MARK = "_isotone"


def intercept_loading(quantizer_class: type[Any]) -> None:
    """Wrap the method, once.

    Parameters
    ----------
    quantizer_class : type
        The class of isotone's quantizer, which supplies the tensors.

    Raises
    ------
    InputError
        If the method is not the one that isotone knows.
    """
    from transformers.modeling_utils import PreTrainedModel  # which may be why we are imported

    found = inspect.getattr_static(PreTrainedModel, _METHOD, None)
    if hasattr(found, _MARK):
        return
    bound = getattr(PreTrainedModel, _METHOD, None)
    parameters = list(inspect.signature(bound).parameters)[:4] if callable(bound) else None
    if found is None or parameters != _PARAMETERS:
        raise InputError(
            f"transformers {transformers.__version__} loads weights in a way that this isotone "
            f"does not know ({_METHOD} takes {parameters}); install a version that "
            "isotone[models] names"
        )
    wrapper: Any = classmethod(_wrapper(found, quantizer_class))
    setattr(wrapper, _MARK, True)
    setattr(PreTrainedModel, _METHOD, wrapper)


def _wrapper(original: Any, quantizer_class: type[Any]) -> Any:
    @functools.wraps(getattr(original, "__func__", original))
    def load(
        cls: Any,
        model: Any,
        state_dict: Any,
        checkpoint_files: Any,
        load_config: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        quantizer = load_config.hf_quantizer
        if state_dict is None and isinstance(quantizer, quantizer_class):
            state_dict = quantizer.state_dict(checkpoint_files, load_config)
        return original.__get__(None, cls)(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )

    return load


def read_through(load_config: Any, checkpoint_files: list[str]) -> CompressedDirectory:
    """Open the directory that transformers is loading; its manifest may come from the hub.

    Parameters
    ----------
    load_config : object
        What transformers knows of the loading: the model's name, the device map, download options.
    checkpoint_files : list of str
        The paths of the shards.

    Returns
    -------
    CompressedDirectory
        The open directory.

    Raises
    ------
    InputError
        If parts of the model are to be offloaded to disk, or the directory is none of isotone's.
    FormatError
        If the directory is damaged.
    """
    places = (load_config.device_map or {}).values()
    if "disk" in places:
        raise InputError(
            "the device_map sends parts of the model to disk, which a clustered model does not "
            "support; give it more memory, or load what isotone decompress makes of it"
        )
    from transformers.utils.hub import cached_file

    name = str(load_config.pretrained_model_name_or_path)
    if not Path(name).is_dir():
        cached_file(
            name,
            MANIFEST_FILE,
            _raise_exceptions_for_missing_entries=False,
            **(load_config.download_kwargs or {}),
        )
    return open_compressed(Path(checkpoint_files[0]).parent)
