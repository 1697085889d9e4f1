"""New values that do not fit their tensor are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay
from isotone.checkpoint.overlay.write import write_complete, write_overlay
from isotone.errors import InputError
from tests.builders.overlays import values_of, write

WRITERS = [write_overlay, write_complete]


def ascending(n, dtype=np.float32):
    return np.arange(n).astype(dtype)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def holed(value):
    return np.array([0, value, 1], np.float32)


REFUSED = {
    "unknown": (
        TensorOverlay("z.weight", ascending(3)),
        "stores no such tensor; for example a.weight",
    ),
    "nothing": (TensorOverlay("a.weight"), "no new values were given"),
    "bytes for a clustered one": (
        TensorOverlay("a.weight", kept=b"x"),
        "is clustered, and the bytes",
    ),
    "a codebook for a kept one": (
        TensorOverlay("norm.weight", ascending(3)),
        "was not clustered, and a",
    ),
    "scales for a kept one": (
        TensorOverlay("steps", row_scale=ones(3)),
        "was not clustered, and scales",
    ),
    "too few bytes": (
        TensorOverlay("norm.weight", kept=b"x" * 47),
        r"47 bytes .* expected 48, BF16 \[24\]",
    ),
    "no bytes": (TensorOverlay("norm.weight"), "0 bytes were given; expected 48"),
    "too long": (
        TensorOverlay("a.weight", ascending(4)),
        r"codebook of shape \(4,\).*expected \(3,\)",
    ),
    "float64": (TensorOverlay("a.weight", ascending(3, np.float64)), "dtype float64"),
    "flat for a stack": (TensorOverlay("b.experts", ascending(6)), r"expected \(2, 3\) float32"),
    "descending": (TensorOverlay("a.weight", ascending(3)[::-1]), "does not ascend"),
    "equal": (TensorOverlay("a.weight", np.float32([0, 1, 1])), "does not ascend"),
    "one of a stack": (
        TensorOverlay("b.experts", np.float32([[0, 1, 2], [3, 2, 4]])),
        "does not ascend",
    ),
    "NaN": (TensorOverlay("a.weight", holed(np.nan)), "holds NaN or infinity"),
    "infinity": (TensorOverlay("a.weight", holed(np.inf)), "holds NaN or infinity"),
    "scales of none": (TensorOverlay("c.weight", row_scale=ones(30)), "was clustered without any"),
    "too many scales": (
        TensorOverlay("a.weight", row_scale=ones(41)),
        r"shape \(41,\).*expected \(40,\)",
    ),
    "scales of ints": (
        TensorOverlay("a.weight", row_scale=ones(40, dtype=np.int32)),
        "dtype int32",
    ),
    "zero scales": (
        TensorOverlay("a.weight", column_scale=0 * ones(40)),
        "not positive and finite",
    ),
    "negative scales": (
        TensorOverlay("a.weight", column_scale=-ones(40)),
        "not positive and finite",
    ),
    "NaN scales": (
        TensorOverlay("a.weight", column_scale=np.nan * ones(40)),
        "not positive and finite",
    ),
}


@pytest.mark.parametrize("by", WRITERS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_name(name, by, pair, tmp_path):
    overlay, said = REFUSED[name]
    with pytest.raises(InputError, match=said) as refused:
        write(pair.base, tmp_path / "out", [overlay], by=by)
    assert str(refused.value).startswith(f"{overlay.name}: ")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_factors_may_be_flat_or_have_an_axis_for_the_matrices(tmp_path, sharded):
    name = "mix.1.experts.gate_up_proj"
    present = values_of(sharded / "base", name)
    assert present.row_scale.shape == (3, 48)
    shapes = {"flat": (144,), "as it is": (3, 48)}
    for label, shape in shapes.items():
        scales = np.linspace(1, 2, 144, dtype=np.float16).reshape(shape)
        write(sharded / "base", tmp_path / label, [TensorOverlay(name, row_scale=scales)])
        found = values_of(tmp_path / label, name).row_scale
        assert (found.shape, found.tobytes()) == ((3, 48), scales.tobytes())
    matrix = np.linspace(1, 2, 48, dtype=np.float32).reshape(1, 48)
    write(sharded / "base", tmp_path / "one", [TensorOverlay("embed.weight", column_scale=matrix)])
    assert values_of(tmp_path / "one", "embed.weight").column_scale.shape == (48,)
