"""Checks that the tensors that an index names are in the files that it names."""

from __future__ import annotations

from collections.abc import Mapping

from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.vocabulary import has_row_per_token, looks_like_embedding, ties_head
from isotone.checkpoint.source.weight_files import WeightFiles
from isotone.errors import FormatError

_HEADS = {"lm_head", "embed_out", "output", "output_layer", "head", "decoder", "proj_out"}


def refuse_absent(weights: WeightFiles, owners: Mapping[str, str], source: Source) -> None:
    """Refuse a checkpoint that lacks a tensor which its index names.

    A head or an embedding may be absent where the model ties it to an embedding that is stored:
    some programs drop such a copy, and leave its name in the index.

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
        If a tensor is not where the index says, and is no tied copy.
    """
    for name, shard in weights.weight_map.items():
        if owners.get(name) == shard or (name not in owners and _is_tied(name, source)):
            continue
        raise FormatError(
            f"{weights.index}: says that {name} is in {shard}, and it is not there; "
            "the checkpoint is incomplete, fetch it again"
        )


def _is_tied(name: str, source: Source) -> bool:
    module = name.removesuffix(".weight").rpartition(".")[2]
    if not name.endswith(".weight") or not (looks_like_embedding(name) or module in _HEADS):
        return False
    return ties_head(source) and any(
        has_row_per_token(source, tensor) and looks_like_embedding(tensor.name)
        for tensor in source.tensors
    )
