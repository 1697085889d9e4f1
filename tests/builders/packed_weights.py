"""Random clustered tensors, and tensors packed as a model holds them."""

from __future__ import annotations

import numpy as np

from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.float_format import FloatFormat
from isotone.core.rate import rank_bits
from isotone.core.values import Values
from isotone.models.packed.ranks import pack_rows
from isotone.models.packed.weight import ClusteredWeight


def packed_weight(tensor):
    """The ClusteredWeight of a ClusteredTensor, as it would be after loading."""
    n_rows = tensor.n_matrices * tensor.values.matrix_shape[0]
    bits = rank_bits(tensor.k)
    packed = pack_rows([tensor.ranks.reshape(-1)], n_rows, tensor.n_weights // n_rows, bits)
    return ClusteredWeight("w", tensor.values, packed, bits)


def random_tensor(shape, k, *, stack=False, scales=False, float_format=FloatFormat.BF16):
    """Random ranks, values and protected weights; `scales` are numbers, or "codes"."""
    rng = np.random.default_rng(k)
    matrices = shape[0] if stack else 1
    rows, columns = shape[stack], int(np.prod(shape[stack + 1 :]))
    codebook = np.sort(rng.normal(size=(matrices, k)).astype(np.float32), axis=1)
    n = int(np.prod(shape))
    index = np.sort(rng.choice(n, n // 20, replace=False))
    sides = {}
    if scales == "codes":
        sides["row_scale"] = rng.integers(116, 140, (matrices, rows)).astype(np.uint8)
        sides["column_scale"] = rng.integers(116, 140, (matrices, columns)).astype(np.uint8)
    elif scales:
        sides["row_scale"] = rng.uniform(0.5, 2, (matrices, rows)).astype(np.float16)
        sides["column_scale"] = rng.uniform(0.5, 2, (matrices, columns)).astype(np.float32)
    if scales:
        sides = {k: v if stack else v[0] for k, v in sides.items()}
    ranks = rng.integers(0, k, shape).astype(np.uint8)
    values = Values(
        shape=shape,
        float_format=float_format,
        codebook=codebook if stack else codebook[0],
        protected_index=index,
        protected_value=float_format.downcast(rng.normal(size=len(index)).astype(np.float32) * 9),
        **sides,
    )
    return ClusteredTensor(values, ranks)
