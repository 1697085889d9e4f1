"""Custom operators of torch that a compiled or exported model calls instead of decoding weights.

torch.compile sees operators and not what they do, so decoding stays as it is; a kernel registered
for one of them is used wherever it is called. The arrays of a packed tensor are their arguments,
hence part of the graph. The weight is decoded for the forward pass and anew for the backward pass,
and nothing dense is kept between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from isotone.core.float_format import FloatFormat
from isotone.models.packed.decoding import Decoding
from isotone.models.packed.gradient import GradientSums
from isotone.models.packed.outliers import Positions

_ARRAYS = (
    "Tensor packed_ranks, Tensor codebook, Tensor? row_scale, Tensor? column_scale, "
    "Tensor? low, Tensor? starts, Tensor? value, "
    "int n_matrices, int n_columns, int bits, str float_format, ScalarType dtype"
)
"""The arguments that stand for a packed tensor, in the order of `arrays_of`."""

_N_ARRAYS = len(_ARRAYS.split(", "))
_N_TRAINED = 3  # codebook, row and column scales, which follow the ranks


def arrays_of(weight: Decoding) -> tuple[Any, ...]:
    """Return what stands for a packed tensor among the arguments of an operator.

    Parameters
    ----------
    weight : Decoding
        The packed tensor.

    Returns
    -------
    tuple
        Its arrays and its sizes.
    """
    exact = weight.protected
    protected = (None, None, None) if exact is None else (exact.low, exact.starts, exact.value)
    return (
        weight.packed_ranks,
        weight.codebook,
        weight.row_scale,
        weight.column_scale,
        *protected,
        weight.n_matrices,
        weight.n_columns,
        weight.bits,
        weight.float_format.value,
        weight.dtype,
    )


@dataclass
class _Protected(Positions):
    """The arrays of protected weights, given as arguments."""

    low: torch.Tensor
    starts: torch.Tensor
    value: torch.Tensor


class _Given(Decoding):
    """A packed tensor whose arrays are arguments of an operator."""

    def __init__(self, arrays: tuple[Any, ...]) -> None:
        self.packed_ranks, self.codebook, self.row_scale, self.column_scale = arrays[:4]
        self.protected = None if arrays[4] is None else _Protected(*arrays[4:7])
        self.n_matrices, self.n_columns, self.bits = arrays[7:10]
        self.float_format, self.dtype = FloatFormat(arrays[10]), arrays[11]
        self.n_rows = self.packed_ranks.shape[0]


def _operator(name: str, given: str, returned: str) -> Any:
    schema = f"({given}{_ARRAYS}) -> {returned}"
    return torch.library.custom_op(f"isotone::{name}", mutates_args=(), schema=schema)


@_operator("decode", "Tensor? rows, ", "Tensor")  # type: ignore[untyped-decorator]
def _decode(rows: torch.Tensor | None, *arrays: Any) -> torch.Tensor:
    """Return the dense weight as a matrix, or some of its rows: see `Decoding.decode`."""
    return _Given(arrays).decode(rows)


@_decode.register_fake  # type: ignore[untyped-decorator]
def _(rows: torch.Tensor | None, *arrays: Any) -> torch.Tensor:
    given = _Given(arrays)
    n_rows = given.n_rows if rows is None else rows.shape[0]
    return given.packed_ranks.new_empty(n_rows, given.n_columns, dtype=given.dtype)


@_operator("linear", "Tensor inputs, Tensor? bias, ", "Tensor")  # type: ignore[untyped-decorator]
def _linear(inputs: torch.Tensor, bias: torch.Tensor | None, *arrays: Any) -> torch.Tensor:
    """Return what `torch.nn.functional.linear` gives for the dense weight, which is one matrix."""
    return functional.linear(inputs, _Given(arrays).decode(None), bias)


@_linear.register_fake  # type: ignore[untyped-decorator]
def _(inputs: torch.Tensor, _bias: torch.Tensor | None, *arrays: Any) -> torch.Tensor:
    return inputs.new_empty(*inputs.shape[:-1], _Given(arrays).n_rows)


_SUMS = "Tensor gradient, Tensor? inputs, Tensor? rows, bool[] wanted, "


@_operator("sum_gradient", _SUMS, "Tensor[]")  # type: ignore[untyped-decorator]
def _sum_gradient(
    gradient: torch.Tensor,
    inputs: torch.Tensor | None,
    rows: torch.Tensor | None,
    wanted: list[bool],
    *arrays: Any,
) -> list[torch.Tensor]:
    """Return the gradients of codebook, row and column scales; empty where one is not wanted.

    `gradient` is that of the decoded rows, or, with `inputs`, that of the outputs of `linear`.
    """
    given = _Given(arrays)
    sums = GradientSums(given, rows, wanted)
    for part, matrix in given.blocks(rows):
        block = gradient[part] if inputs is None else gradient[:, part].t() @ inputs
        sums.add(block, part, matrix)
    return [gradient.new_empty(0) if each is None else each for each in sums.gradients()]


@_sum_gradient.register_fake  # type: ignore[untyped-decorator]
def _(
    gradient: torch.Tensor, _inputs: Any, _rows: Any, wanted: list[bool], *arrays: Any
) -> list[torch.Tensor]:
    trained = zip(wanted, arrays[1 : 1 + _N_TRAINED], strict=True)
    return [
        torch.empty_like(array, dtype=torch.float32) if want else gradient.new_empty(0)
        for want, array in trained
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], **_: Any) -> None:
    """Keep what an operator was given: the first arguments, then the arrays."""
    n_first = len(inputs) - _N_ARRAYS
    first, arrays = inputs[:n_first], inputs[n_first:]
    ctx.save_for_backward(first[0], *arrays[:7])
    ctx.sizes, ctx.n_first = arrays[7:], n_first


def _of_arrays(ctx: Any, gradient: Any, inputs: Any, rows: Any, arrays: Any) -> tuple[Any, ...]:
    """Return the gradients of all arrays."""
    begin = ctx.n_first + 1
    wanted = list(ctx.needs_input_grad[begin : begin + _N_TRAINED])
    sums: list[Any] = [None] * _N_TRAINED
    if any(wanted):
        found = torch.ops.isotone.sum_gradient(gradient, inputs, rows, wanted, *arrays)
        sums = [each if want else None for each, want in zip(found, wanted, strict=True)]
    return (None, *sums, *[None] * (_N_ARRAYS - 1 - _N_TRAINED))


def _decode_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    rows, *tensors = ctx.saved_tensors
    return None, *_of_arrays(ctx, gradient, None, rows, (*tensors, *ctx.sizes))


def _linear_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    inputs, *tensors = ctx.saved_tensors
    arrays = (*tensors, *ctx.sizes)
    to_inputs = to_bias = None
    if ctx.needs_input_grad[0]:
        weight = torch.ops.isotone.decode(None, *arrays)
        to_inputs = gradient @ weight.to(gradient.dtype)
    gradient = gradient.reshape(-1, gradient.shape[-1])
    if ctx.needs_input_grad[1]:
        to_bias = gradient.sum(0)
    flat = inputs.reshape(-1, inputs.shape[-1])
    return to_inputs, to_bias, *_of_arrays(ctx, gradient, flat, None, arrays)


_decode.register_autograd(_decode_backward, setup_context=_save)
_linear.register_autograd(_linear_backward, setup_context=_save)
