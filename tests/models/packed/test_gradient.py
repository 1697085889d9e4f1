"""Gradients through packed weights are those that torch finds for a plain look-up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from isotone.core.float_format import FloatFormat
from tests.builders.packed_weights import packed_weight, random_tensor

TOLERANCE = 1e-5
"""Of gradients, relative: they are summed in float64 here and in float32 by torch's reference."""


def plain_weight(weight, tensor, codebook, row, column):
    """The dense weight [rows, columns] by indexing, which torch differentiates by itself."""
    ranks = torch.from_numpy(tensor.ranks).long().reshape(weight.n_matrices, -1)
    plain = codebook.view(weight.n_matrices, -1).gather(1, ranks)
    plain = plain.reshape(weight.n_rows, weight.n_columns)
    if row is not None:
        height = weight.n_rows // weight.n_matrices
        plain = plain * row.view(-1, 1) * column.repeat_interleave(height, 0)
    exact = torch.zeros(plain.numel(), dtype=torch.bool)
    exact[torch.from_numpy(tensor.protected_index)] = True
    exact = exact.view(plain.shape)
    return torch.where(exact, weight.decode(None), plain)


OUTER = torch.randn(18, 8, generator=torch.Generator().manual_seed(1))


INPUTS = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))


ROWS = torch.tensor([4, 1, 4, 17])


USES = {
    "whole": (lambda w: (w().view(18, 8) * OUTER).sum(), lambda p: (p * OUTER).sum()),
    "rows": (lambda w: (w.rows(ROWS) * OUTER[:4]).sum(), lambda p: (p[ROWS] * OUTER[:4]).sum()),
    "linear": (lambda w: (w.linear(INPUTS) ** 2).sum(), lambda p: ((INPUTS @ p.t()) ** 2).sum()),
}


@pytest.mark.parametrize("trained", ["codebook", "all"])
@pytest.mark.parametrize("scales", [False, True, "codes"])
@pytest.mark.parametrize(
    ("stack", "use"), [(False, "whole"), (False, "rows"), (False, "linear"), (True, "whole")]
)
def test_gradients_equal_those_of_a_plain_lookup(scales, stack, use, trained):
    shape = (3, 6, 8) if stack else (18, 8)
    tensor = random_tensor(shape, 7, stack=stack, scales=scales, float_format=FloatFormat.F32)
    weight = packed_weight(tensor)
    weight.codebook.requires_grad_()
    row = column = None
    if scales:
        row = weight.scales(slice(0, 18), 0)[0].clone()
        columns = [weight.scales(slice(0, 1), m)[1] for m in range(weight.n_matrices)]
        column = torch.stack(columns)
        if trained == "all":
            del weight.row_scale, weight.column_scale
            weight.row_scale, weight.column_scale = nn.Parameter(row), nn.Parameter(column)
            row, column = row.clone().requires_grad_(), column.clone().requires_grad_()
    codebook = torch.from_numpy(np.array(tensor.codebook)).requires_grad_()
    ours = [weight.codebook, weight.row_scale, weight.column_scale]
    theirs = [codebook, row, column]
    of_ours, of_theirs = USES[use]
    found = torch.autograd.grad(of_ours(weight), trainable(ours))
    plain = plain_weight(weight, tensor, codebook, row, column)
    expected = torch.autograd.grad(of_theirs(plain), trainable(theirs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


def trainable(tensors):
    return [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]


def test_a_linear_layer_passes_gradients_on_to_its_inputs():
    weight = packed_weight(random_tensor((18, 8), 7, float_format=FloatFormat.F32))
    weight.codebook.requires_grad_()
    ours, theirs = (INPUTS.view(1, 5, 8).clone().requires_grad_() for _ in range(2))
    bias = torch.randn(18, generator=torch.Generator().manual_seed(3))
    out = weight.linear(ours, bias)
    reference = nn.functional.linear(theirs, weight.decode(None), bias)
    torch.testing.assert_close(out, reference)
    out.square().sum().backward()
    reference.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_linear_layer_saves_nothing_dense_for_its_gradient():
    weight = packed_weight(random_tensor((640, 480), 7, float_format=FloatFormat.F32))
    weight.codebook.requires_grad_()
    saved = []

    def note(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        weight.linear(torch.zeros(3, 480))
    assert saved == [3 * 480]
