"""Which clustered tensors of its directory a loaded model's parameters come from.

transformers renames and merges on loading, and does not say afterwards what went where. So the
model is loaded once more with tensors that carry nothing but their names, and where those arrive is
the answer. That reads no weights and takes a fraction of a second; the answer is kept on the model.
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
    """The compressed directory that a model was loaded from; raises InputError where it is none."""
    directory: Path | None = getattr(model, DIRECTORY_ATTRIBUTE, None)
    if directory is None:
        raise InputError(
            f"the {type(model).__name__} was not loaded from a clustered directory; load what "
            "isotone compress wrote, after `import isotone`"
        )
    return directory


def parameter_sources(model: Any) -> dict[str, Expression]:
    """For each parameter of a dense model that comes from clustered tensors: how.

    The leaves of the sources are UnreadWeights. Parameters that are tied come under each name.
    Raises InputError where the model did not come from a clustered directory.
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
