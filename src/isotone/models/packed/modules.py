"""Puts clustered weights into the modules of a loaded model, and finds them again.

Any kind of module can host them, whatever its parameter is called: see
`isotone.models.packed.hosting`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

from torch import nn

from isotone.checkpoint.compressed.manifest import ClusteredRecord
from isotone.models.lazy.loading_tensor import Loading
from isotone.models.packed.hosting import CLUSTERED_CHILD, PackedParameter, host
from isotone.models.packed.weight import ClusteredWeight


def install(model: nn.Module) -> None:
    """Turn every `Loading` parameter of a model into clustered weights that it is decoded from.

    Parameters that are tied stay tied.

    Parameters
    ----------
    model : torch.nn.Module
        The model as transformers loaded it; is changed.
    """
    packed: dict[int, PackedParameter] = {}
    for module in list(model.modules()):
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if isinstance(tensor, Loading):
                parameter = packed.setdefault(id(tensor), PackedParameter(tensor.source))
                host(module, name, parameter)


def hosts(model: nn.Module) -> Iterator[tuple[str, PackedParameter]]:
    """Yield the packed parameters of a model; a tied one comes under each of its names.

    Parameters
    ----------
    model : torch.nn.Module
        Any model.

    Yields
    ------
    name : str
        The name of the parameter in the model.
    packed : PackedParameter
        Its clustered weights.
    """
    for name, module in model.named_modules(remove_duplicate=False):
        held = module._modules.get(CLUSTERED_CHILD)
        if isinstance(held, nn.ModuleDict):
            for parameter, packed in held.items():
                assert isinstance(packed, PackedParameter)
                yield f"{name}.{parameter}" if name else parameter, packed


def clustered_weights(model: nn.Module) -> list[ClusteredWeight]:
    """Return every clustered weight of a model, each once.

    Parameters
    ----------
    model : torch.nn.Module
        Any model.

    Returns
    -------
    list of ClusteredWeight
        The weights in the order of the modules; empty for a dense model.
    """
    return [module for module in model.modules() if isinstance(module, ClusteredWeight)]


def share_stored(model: nn.Module) -> None:
    """Let modules whose weights were read from one stored tensor have one clustered weight.

    A model that does not tie two matrices has them twice, although they are stored once.

    Parameters
    ----------
    model : torch.nn.Module
        The packed model; is changed.
    """
    first: dict[str, PackedParameter] = {}
    for name, packed in list(hosts(model)):
        leaf = packed.source.leaf
        if leaf is not None and first.setdefault(leaf.name, packed) is not packed:
            module, _, parameter = name.rpartition(".")
            host(model.get_submodule(module), parameter, first[leaf.name])


def warn_of_dense(model: nn.Module, read: Iterable[ClusteredRecord]) -> None:
    """Warn if tensors of a packed model are dense although its checkpoint has them clustered.

    Parameters
    ----------
    model : torch.nn.Module
        The packed model.
    read : iterable of ClusteredRecord
        The clustered tensors that it was loaded from.
    """
    read = list(read)
    packed = {weight.name for weight in clustered_weights(model)}
    held = {record.decoded_hash for record in read if record.name in packed}  # also if tied to it
    dense = [record for record in read if record.decoded_hash not in held]
    if dense:
        warnings.warn(
            f"{len(dense)} clustered tensors, {dense[0].name} for one, are dense in memory and "
            f"take {sum(record.dense_bytes for record in dense)} bytes: transformers converts them "
            "while loading in a way that cannot be put off",
            RuntimeWarning,
            stacklevel=2,
        )
