"""Finds the matrices that a checkpoint holds more than once because the model ties them.

Most checkpoints of tied models hold the shared matrix once; some hold it again as the output
embedding, or as the embedding of an encoder and of a decoder. Such a copy is stored once, and every
reader gives it back under each of its names, so nothing depends on what the model does with it.
"""

from __future__ import annotations

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.vocabulary import has_row_per_token, looks_like_embedding, ties_head

_PIECE_WEIGHTS = 1 << 22


def find_tied(source: Source) -> dict[str, str]:
    """Find the matrices that repeat an embedding.

    A copy has a row for each token, as the embedding has, and the same dtype, shape and bytes. If
    the config says that the output embedding is not tied, only copies among the input embeddings
    are found. All other matrices are stored as they are, however equal they may be: two matrices of
    zeros are two matrices.

    Parameters
    ----------
    source : Source
        The model.

    Returns
    -------
    dict of str to str
        For each matrix that repeats an embedding, the name of that embedding.

    Raises
    ------
    FormatError
        If the source cannot be read.

    Notes
    -----
    The cost is one pass over each copy, and a few million weights of each matrix that differs.
    """
    rows = [tensor for tensor in source.tensors if has_row_per_token(source, tensor)]
    embeddings = [tensor for tensor in rows if looks_like_embedding(tensor.name)]
    heads = [tensor for tensor in rows if tensor not in embeddings and ties_head(source)]
    tied: dict[str, str] = {}
    for copy in (*embeddings, *heads):
        for original in embeddings:
            if original == copy:
                break  # an embedding repeats only one that is stored before it
            if original.name not in tied and _same(source, original, copy):
                tied[copy.name] = original.name
                break
    return tied


def _same(source: Source, one: TensorInfo, other: TensorInfo) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and all(
        (source.read(one, start, stop) == source.read(other, start, stop)).all()
        for start in range(0, one.n_weights, _PIECE_WEIGHTS)
        for stop in (min(start + _PIECE_WEIGHTS, one.n_weights),)
    )
