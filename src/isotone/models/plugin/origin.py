"""Which clustered tensors of its directory a loaded model's parameters come from.

transformers renames and merges on loading, and does not say afterwards what went where. So the
model is loaded once more with tensors that carry nothing but their names, which shows where each
arrives. That reads no weights and takes a fraction of a second; the result is kept on the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isotone.errors import InputError
from isotone.models.lazy.expression import Expression
from isotone.models.lazy.loading_tensor import Loading
from isotone.models.plugin.config import IsotoneConfig

DIRECTORY_ATTRIBUTE = "_isotone_directory"
"""On a loaded model: the path of the compressed directory that it came from."""

_SOURCES_ATTRIBUTE = "_isotone_sources"


def origin(model: Any) -> Path:
    """Return the compressed directory that a model was loaded from.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A model in memory.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    InputError
        If the model was not loaded from a compressed directory.
    """
    directory: Path | None = getattr(model, DIRECTORY_ATTRIBUTE, None)
    if directory is None:
        raise InputError(
            f"the {type(model).__name__} was not loaded from a clustered directory; load what "
            "isotone compress wrote, after `import isotone`"
        )
    return directory


def parameter_sources(model: Any) -> dict[str, Expression]:
    """Return how the parameters of a dense model are computed from clustered tensors.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A model that was loaded from a compressed directory with residency `dense`.

    Returns
    -------
    dict of str to Expression
        By the names of the parameters in the model; leaves are UnreadWeights. Parameters that are
        tied come under each name; those of other tensors are left out.

    Raises
    ------
    InputError
        If the model was not loaded from a compressed directory.
    """
    directory = origin(model)
    known: dict[str, Expression] | None = getattr(model, _SOURCES_ATTRIBUTE, None)
    if known is None:
        names = type(model).from_pretrained(
            directory, dtype=model.dtype, quantization_config=IsotoneConfig.unread()
        )
        known = {
            name: parameter.source
            for name, parameter in names.named_parameters(remove_duplicate=False)
            if isinstance(parameter, Loading)
        }
        setattr(model, _SOURCES_ATTRIBUTE, known)
    return known
