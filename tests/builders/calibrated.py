"""Small matrices, and what errors in them cost."""

from __future__ import annotations

import numpy as np

from isotone.core.calibrated.gptq import errors_of
from isotone.core.calibrated.sensitivity import Sensitivity
from isotone.core.float_format import FloatFormat
from isotone.core.matrix import Matrix


def matrix_of(weights):
    bits = FloatFormat.BF16.downcast(weights.astype(np.float32)).reshape(-1)
    return Matrix(lambda: (bits,), weights.shape, FloatFormat.BF16, "w")


def moment(rng, n_columns, n_tokens=2000):
    """Of inputs that have to do with each other, as those of trained models do."""
    mix = rng.normal(size=(n_columns, n_columns)) * np.exp(rng.normal(size=n_columns))
    inputs = rng.normal(size=(n_tokens, n_columns)) @ (mix / 4 + np.eye(n_columns))
    return (inputs.T @ inputs / n_tokens).astype(np.float32)


def sensitivity_of(rng, shape, inputs=None):
    outputs = np.exp(rng.normal(size=shape[0])).astype(np.float32)
    return Sensitivity(moment(rng, shape[1]) if inputs is None else inputs, outputs, 2000)


def errors(matrix, fit):
    """The errors of a clustered matrix as one array."""
    return np.concatenate([piece for _, piece in errors_of(matrix, fit)])
