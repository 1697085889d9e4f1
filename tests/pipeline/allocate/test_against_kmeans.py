"""At equal bytes, asking for a size is never worse than k-means."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.pipeline.compress import compress
from isotone.pipeline.verify import verify
from tests.builders.checkpoints import Bf16, normal, weights, write_model

TARGET = 0.005
"""By how much a size may be missed, relative: what `--bits` promises."""


def planted(array, value):
    array[::37, 11] = value
    return array


def step(values):
    return np.random.default_rng(8).choice(values, (240, 300))


MADE = {
    "normal": normal(240, 300, seed=1),
    "heavy tails": weights(240, 300, seed=2),
    "heavier tails": np.random.default_rng(3).standard_t(2, (240, 300)),
    "cauchy": np.random.default_rng(4).standard_cauchy((240, 300)),
    "outliers": planted(normal(240, 300, seed=5), 3.0),
    "constant rows": np.repeat(normal(240, 1, seed=6), 300, axis=1),
    "all zero": np.zeros((240, 300)),
    "constant": np.full((240, 300), 0.25),
    "two values": step([-1.0, 1.0]),
    "three distinct values": step([-1.0, 0.0, 0.5]),
    "a coarse grid": np.round(normal(240, 300, seed=9, scale=4.0)) / 8,
    "a fine grid": np.round(normal(240, 300, seed=9, scale=40.0)) / 8,
    "skewed": np.random.default_rng(10).gamma(0.3, 1.0, (240, 300)),
    "uniform": np.random.default_rng(11).uniform(-1, 1, (240, 300)),
    "uneven columns": normal(240, 300, seed=12) * np.exp(normal(300, seed=13, scale=1.0)),
    "one row": weights(2, 1, 30_000, seed=14),
    "one column": weights(2, 30_000, 1, seed=15),
    "small": weights(40, 50, seed=16),
}


LUMPY = {"constant rows", "a coarse grid"}
"""A few values, each of many weights: no price leads to most sizes."""

MERGED = 1.001
"""Borders are found on merged points: on uniform weights, 0.05 % more error than the best."""


@pytest.mark.parametrize(("dtype", "k"), [("BF16", 16), ("F32", 5)])
@pytest.mark.parametrize("name", MADE)
def test_never_worse_than_k_means_at_equal_bytes(name, k, dtype, tmp_path):
    array = MADE[name].astype("<f4")
    tensor = Bf16(array) if dtype == "BF16" else array
    model = write_model(tmp_path / "model", {"experts.weight": tensor})
    plain = compress(model, tmp_path / "plain", k=k, protect="off", scale="none")
    bits = min(max(plain.bits_per_weight, 1.0), 8.0)
    found = compress(model, tmp_path / "found", bits=bits, scale="none")
    assert verify(tmp_path / "found", against=model).ok
    before, after = plain.relative_distortion, found.relative_distortion
    if name in LUMPY:  # at equal bytes by the slope of the curve, a factor of four for each bit
        assert after * 4.0**found.bits_per_weight <= before * 4.0**plain.bits_per_weight * MERGED
    else:
        assert found.bits_per_weight <= bits * (1 + TARGET)
        assert after <= before * MERGED
