"""A clustered tensor as the arrays that are on disk, and back."""

from __future__ import annotations

import numpy as np

from isotone.codec.arrays import (
    CODEBOOK,
    PACKED,
    PROTECTED_INDEX,
    PROTECTED_VALUE,
    StoredArray,
    scale_arrays,
    values_of,
)
from isotone.codec.outlier_index import encode_positions
from isotone.codec.packed import ALIGNMENT, PackedLayout, PackedReader, encode_chunk
from isotone.core.clustered_tensor import ClusteredTensor


def packed_array(ranks, layout):
    """The packed array of ranks, [matrices, weights]."""
    spans = [layout.span(chunk) for chunk in range(layout.n_chunks)]
    coded = [encode_chunk(np.ascontiguousarray(ranks[m, a:b]), layout.k) for m, a, b in spans]
    packed = layout.header([entry for _, entry in coded])
    packed += b"".join(data.tobytes() for data, _ in coded)
    return np.frombuffer(packed + bytes(-len(packed) % ALIGNMENT), np.uint8)


def arrays_of_tensor(tensor):
    """The arrays of a tensor, by suffix."""
    layout = PackedLayout(tensor.shape, tensor.float_format, tensor.k, tensor.n_matrices)
    ranks = tensor.ranks.reshape(tensor.n_matrices, -1)
    arrays = {
        PACKED: StoredArray("U8", packed_array(ranks, layout)),
        CODEBOOK: StoredArray("F32", tensor.codebook),
        **scale_arrays(tensor.values),
    }
    if len(tensor.protected_index):
        arrays[PROTECTED_INDEX] = StoredArray("U16", encode_positions(tensor.protected_index))
        arrays[PROTECTED_VALUE] = StoredArray(tensor.float_format.value, tensor.protected_value)
    return arrays


def tensor_of_arrays(arrays, name):
    """The tensor of some arrays, by suffix; decodes all of it."""
    packed = arrays[PACKED].array
    reader = PackedReader(lambda start, stop: packed[start:stop], len(packed), name)
    ranks = np.empty((reader.layout.n_matrices, reader.layout.matrix_weights), np.uint8)
    for chunk, matrix, start, stop in reader.spans():
        ranks[matrix, start:stop] = reader.decode(chunk)
    values = values_of(arrays, reader.layout, name)
    return ClusteredTensor(values, ranks.reshape(values.shape))
