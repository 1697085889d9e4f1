"""Finds the matrices that a checkpoint holds more than once because models tie them.

Most checkpoints of tied models hold the shared matrix once; some hold it again as the output
embedding, or as the embedding of an encoder and of a decoder. Such a copy is stored once, and every
reader gives it back under each of its names, so nothing depends on what the model does with it: a
model that does not tie them gets two equal matrices, as before.
"""

from __future__ import annotations

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.vocabulary import is_embedding

_PIECE_WEIGHTS = 1 << 22


def find_tied(source: Source) -> dict[str, str]:
    """Find the matrices that repeat an embedding.

    A copy has the dtype, the shape and the bytes of an embedding of tokens. All other matrices are
    stored as they are, however equal they may be: two matrices of zeros are two matrices.

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
    embeddings = [tensor for tensor in source.tensors if is_embedding(source, tensor)]
    forms = {(tensor.dtype, tensor.shape) for tensor in embeddings}
    names = {tensor.name for tensor in embeddings}
    others = [t for t in source.tensors if (t.dtype, t.shape) in forms and t.name not in names]
    tied: dict[str, str] = {}
    for copy in (*embeddings, *others):
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
