"""`isotone inspect` of a codebook-only directory tells how far its codebooks moved."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay
from isotone.checkpoint.overlay.write import write_complete
from isotone.pipeline.inspect import inspect, inspect_tensor
from isotone.pipeline.movement import Movement
from tests.builders.overlays import make_pair, values_of, write


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Not to be changed."""
    return make_pair(tmp_path_factory.mktemp("pair"))


def test_inspect_measures_against_the_base(pair):
    reports = {report.record.name: report for report in inspect(pair.healed).clustered}
    for change in pair.overlays[:2]:
        before = values_of(pair.base, change.name).codebook.astype(np.float64)
        gap = (before[..., -1:] - before[..., :1]) / 2
        moved = (change.codebook - before) / gap
        movement = reports[change.name].movement
        assert movement.spacings.reshape(moved.shape) == pytest.approx(moved, rel=1e-12)
        assert movement.root_mean_square == pytest.approx(np.sqrt((moved**2).mean()), rel=1e-12)
        assert movement.farthest == pytest.approx(np.abs(moved).max(), rel=1e-12)
    assert reports["c.weight"].movement.farthest == 0.0
    assert inspect(pair.healed).base == pair.base
    assert inspect(pair.base).base is None
    assert inspect_tensor(pair.base, "a").movement is None


def test_inspect_in_json(pair, isotone):
    found = isotone("inspect", pair.healed, "--json").json
    rows = {row["name"]: row for row in found["tensors"]}
    reports = {report.record.name: report for report in inspect(pair.healed).clustered}
    for name, row in rows.items():
        movement = reports[name].movement
        assert (row["moved"], row["moved_farthest"]) == (
            movement.root_mean_square,
            movement.farthest,
        )
        assert (row["distortion"] is None) == (name != "c.weight")
    assert (found["relative_distortion"], found["n_changed"]) == (None, 3)
    assert found["base"] == str(pair.base)
    decoded = {kept["name"]: kept["decoded_hash"] for kept in found["kept"]}
    assert [name for name, changed in decoded.items() if changed] == ["norm.weight"]
    alone = isotone("inspect", pair.base, "--json").json
    assert (alone["base"], alone["base_bytes"], alone["n_changed"]) == (None, 0, 0)
    assert {(row["moved"], row["moved_farthest"]) for row in alone["tensors"]} == {(None, None)}


@pytest.mark.parametrize("name", ["a.weight", "b.experts", "c.weight"])
def test_centroids_in_json(name, pair, isotone):
    row = isotone("inspect", pair.healed, "--tensor", name, "--json").json
    before, after = values_of(pair.base, name).codebook, values_of(pair.healed, name).codebook
    places = [(c["matrix"], c["rank"]) for c in row["centroids"]]
    assert places == list(np.ndindex(before.reshape(-1, 3).shape))
    assert [c["before"] for c in row["centroids"]] == before.reshape(-1).tolist()
    assert [c["after"] for c in row["centroids"]] == after.reshape(-1).tolist()
    assert [c["moved"] for c in row["centroids"]] == Movement(before, after).spacings.reshape(
        -1
    ).tolist()
    alone = isotone("inspect", pair.base, "--tensor", name, "--json").json
    assert (alone["centroids"], alone["moved"]) == (None, None)


def test_inspect_as_text(pair, isotone):
    table = isotone("inspect", pair.healed).out
    moved = inspect_tensor(pair.healed, "a").movement.root_mean_square
    (row,) = (line for line in table.splitlines() if "a.weight" in line)
    assert f" {moved:.3f} " in row
    (row,) = (line for line in table.splitlines() if "c.weight" in line)
    assert " 0.000 " in row
    for text in (
        " moved ",
        "kept, and changed since, not a matrix: norm.weight",
        "kept as it is, dtype I64: steps",
        "not known: codebooks were changed since",
        "3 tensors; all else is in the base",
        "of it the base",
    ):
        assert text in table
    assert " error " not in table
    alone = isotone("inspect", pair.base).out
    assert " error " in alone
    for text in ("moved", "changed", "of it the base", "not known"):
        assert text not in alone


def test_a_tensor_as_text(pair, isotone):
    table = isotone("inspect", pair.healed, "--tensor", "a").out
    movement = inspect_tensor(pair.healed, "a").movement
    assert "weights protected" in table
    assert f"moved by {movement.root_mean_square:.3f} of the mean spacing" in table
    for rank in range(3):
        (row,) = (li for li in table.splitlines() if li.startswith(f"│{rank:>5} │"))
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        before, after = movement.before[rank], movement.after[rank]
        moved = movement.spacings[0, rank]
        assert cells == [str(rank), f"{before:.5g}", f"{after:.5g}", f"{moved:+.3f}"]
    assert "matrix" not in table
    assert "matrix" in isotone("inspect", pair.healed, "--tensor", "b.experts").out
    assert "moved" not in isotone("inspect", pair.base, "--tensor", "a").out


def test_a_complete_directory_says_what_is_not_known(pair, isotone, tmp_path):
    write(pair.healed, tmp_path / "out", (), by=write_complete)
    table = isotone("inspect", tmp_path / "out").out
    (row,) = (line for line in table.splitlines() if "a.weight" in line)
    assert " unknown " in row
    assert "not known: codebooks were changed since" in table
    assert isotone("inspect", tmp_path / "out", "--json").json["relative_distortion"] is None


def test_stacks_print_every_matrix(pair, tmp_path, isotone):
    change = TensorOverlay("b.experts", np.float32([[0, 1, 2], [3, 4, 5]]))
    write(pair.base, tmp_path / "out", [change])
    rows = isotone("inspect", tmp_path / "out", "--tensor", "b.experts").out.splitlines()
    places = [tuple(row.strip("│").split("│")[:2]) for row in rows if row.startswith("│ ")]
    found = [(int(m), int(r)) for m, r in places[-6:]]
    assert found == [(m, r) for m in range(2) for r in range(3)]
