"""The options of loading a compressed directory with transformers."""

from __future__ import annotations

from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from isotone.checkpoint.compressed.manifest import FORMAT_VERSION, QUANT_METHOD, READ_VERSIONS
from isotone.errors import FormatError, InputError

RESIDENCIES = ("dense", "packed")
"""The values of `residency`: how a loaded model holds its weights."""

UNREAD = "unread"
"""The residency of a model that is loaded by names only: see `isotone.models.plugin.origin`."""


class IsotoneConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """How transformers loads a compressed directory.

    Give it to `from_pretrained` as `quantization_config`; without one, weights are dense.

    Parameters
    ----------
    residency : {"dense", "packed"}
        `dense` decodes all weights while loading: the model is an ordinary one afterwards, and
        `save_pretrained` writes plain safetensors. `packed` keeps the ranks in memory at the least
        width that k needs, and decodes each weight when it is used: the model takes less memory and
        more time, and its codebooks are parameters that can be trained.
    format_version : int
        What config.json says; not for callers.
    dtype : str, optional
        What config.json says; not for callers.

    Raises
    ------
    InputError
        If the residency is another one.
    FormatError
        If this isotone does not read the format version.

    Examples
    --------
    >>> IsotoneConfig(residency="packed").residency
    'packed'

    Keep a model packed in memory::

        import isotone
        from transformers import AutoModelForCausalLM

        config = isotone.IsotoneConfig(residency="packed")
        model = AutoModelForCausalLM.from_pretrained("out", quantization_config=config)
    """

    def __init__(
        self,
        residency: str = "dense",
        format_version: object = FORMAT_VERSION,
        dtype: str | None = None,
    ) -> None:
        if residency not in RESIDENCIES:
            raise InputError(f"residency is {residency!r}; expected {' or '.join(RESIDENCIES)}")
        if format_version not in READ_VERSIONS:
            raise FormatError(
                f"the model has format version {format_version!r}; this isotone reads "
                f"{', '.join(map(str, READ_VERSIONS))}; install the isotone that wrote it"
            )
        self.quant_method = QUANT_METHOD
        self.residency, self.format_version, self.dtype = residency, format_version, dtype

    @classmethod
    def unread(cls) -> IsotoneConfig:
        """Return the config that loads names and no weights, for isotone's own use."""
        config = cls()
        config.residency = UNREAD
        return config

    @property
    def dequantize(self) -> bool:
        """Whether transformers forgets, after loading, that the model was quantized."""
        return self.residency == "dense"

    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """Make a config from the `quantization_config` of a config.json.

        Parameters
        ----------
        config_dict : dict
            The content. Keys of later formats are ignored: the version refuses those.
        return_unused_kwargs : bool
            Whether to return `kwargs` as well, as transformers asks.
        **kwargs
            Passed back unchanged.

        Returns
        -------
        IsotoneConfig, or tuple of IsotoneConfig and dict
            The config.

        Raises
        ------
        FormatError
            If the format version is missing, or this isotone does not read it.
        """
        known = ("residency", "format_version", "dtype")
        config = cls(
            **{"format_version": None, **{k: config_dict[k] for k in known if k in config_dict}}
        )
        return (config, kwargs) if return_unused_kwargs else config
