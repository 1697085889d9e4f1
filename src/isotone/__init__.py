"""isotone: weight clustering for language models.

Importing it is quick and imports neither torch nor transformers; it makes sure that transformers,
imported before or after, loads directories that isotone compressed:

    import isotone
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("out")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from isotone.models.plugin.registration import register_when_imported

if TYPE_CHECKING:
    from isotone.core.cluster import cluster
    from isotone.core.clustered_tensor import ClusteredTensor
    from isotone.errors import FormatError, InputError, IsotoneError, MissingExtraError
    from isotone.models.plugin.quantizer import IsotoneConfig
    from isotone.models.swap import swapped
    from isotone.pipeline.calibrate import calibrate
    from isotone.pipeline.compress import compress
    from isotone.pipeline.decompress import decompress
    from isotone.pipeline.inspect import inspect
    from isotone.pipeline.verify import verify

__all__ = [
    "ClusteredTensor",
    "FormatError",
    "InputError",
    "IsotoneConfig",
    "IsotoneError",
    "MissingExtraError",
    "calibrate",
    "cluster",
    "compress",
    "decompress",
    "inspect",
    "swapped",
    "verify",
]

_HOMES = {
    "ClusteredTensor": "isotone.core.clustered_tensor",
    "FormatError": "isotone.errors",
    "InputError": "isotone.errors",
    "IsotoneConfig": "isotone.models.plugin.quantizer",
    "IsotoneError": "isotone.errors",
    "MissingExtraError": "isotone.errors",
    "calibrate": "isotone.pipeline.calibrate",
    "cluster": "isotone.core.cluster",
    "compress": "isotone.pipeline.compress",
    "decompress": "isotone.pipeline.decompress",
    "inspect": "isotone.pipeline.inspect",
    "swapped": "isotone.models.swap",
    "verify": "isotone.pipeline.verify",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever the name stands for)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'isotone' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
