"""Checks that the tensors that an index names are in the files that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.vocabulary import is_embedding, looks_like_embedding, ties_head
from isotone.checkpoint.source.weight_files import WeightFiles
from isotone.errors import FormatError

_HEADS = {"lm_head", "embed_out", "output", "output_layer", "head", "decoder", "proj_out"}
_OTHER_EMBEDDING = re.compile("pos|type|segment|patch|norm|time|proj")
_COMPUTED = (
    "inv_freq",
    "cos_cached",
    "sin_cached",
    "position_ids",
    "relative_position_index",
    "masked_bias",
    "num_batches_tracked",
)
"""The endings of the names of buffers that transformers' models do not load."""


def refuse_absent(weights: WeightFiles, owners: Mapping[str, str], source: Source) -> None:
    """Refuse a checkpoint that lacks a tensor which its index names.

    transformers reads whole files and takes from the index only which ones, so a tensor may be in
    another file of the set. A head or an embedding may be absent where the model ties it to an
    embedding that is stored: some programs drop such a copy, and leave its name in the index. A
    buffer that every model computes for itself may be absent too.

    Parameters
    ----------
    weights : WeightFiles
        The files, and the index.
    owners : mapping of str to str
        The name of the file that holds each tensor.
    source : Source
        The model.

    Raises
    ------
    FormatError
        If a tensor is in none of the files, and is neither a tied copy nor computed.
    """
    for name, shard in weights.weight_map.items():
        if name in owners or name.endswith(_COMPUTED) or _is_tied(name, source):
            continue
        raise FormatError(
            f"{weights.index}: says that {name} is in {shard}, and it is not there; "
            "the checkpoint is incomplete, fetch it again"
        )


def _is_tied(name: str, source: Source) -> bool:
    """Return whether a head or a token embedding of this name is tied to one that is stored."""
    *path, module = name.removesuffix(".weight").split(".")
    embeds = looks_like_embedding(module) and not _OTHER_EMBEDDING.search(module)
    if not name.endswith(".weight") or not (embeds or module in _HEADS):
        return False
    if any(part.isdigit() for part in path):  # a matrix of a layer: no head, whatever its name
        return False
    return ties_head(source) and any(is_embedding(source, tensor) for tensor in source.tensors)
