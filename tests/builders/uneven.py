"""Matrices whose rows and columns are of different sizes."""

from __future__ import annotations

import numpy as np


def uneven(kind, shape, seed, sigma_row=0.0, sigma_column=0.0):
    generator = np.random.default_rng(seed)
    inner = {
        "normal": generator.standard_normal(shape),
        "student": generator.standard_t(4, shape),
        "uniform": generator.uniform(-1, 1, shape),
    }[kind]
    inner *= np.exp(generator.normal(0, sigma_row, (shape[0], 1)))
    return (0.02 * inner * np.exp(generator.normal(0, sigma_column, shape[1]))).astype(np.float32)
