"""`isotone compress` as text: where the result is, its totals, and what it refuses to combine."""

from __future__ import annotations

import pytest

from tests.builders.checkpoints import CLUSTERED, one_of_each


@pytest.fixture
def printed(isotone, model, tmp_path):
    """What compressing a small model prints, and the directory that it wrote."""
    out = tmp_path / ("a_long_name_" * 8) / "out"
    out.parent.mkdir()
    run = isotone("compress", model, out, "--k", 6)
    assert (run.code, run.err) == (0, "")
    return run.out, out


def test_the_path_stays_whole(printed):
    text, out = printed
    assert text.splitlines()[0] == str(out)


def test_totals_are_those_of_json(printed, isotone):
    text, out = printed
    rows = [line.strip("│ ").split("│") for line in text.splitlines() if line.startswith("│")]
    shown = {label.strip(): value.strip() for label, value in rows}
    found = isotone("inspect", out, "--json").json
    n_kept = len(one_of_each()) - len(CLUSTERED)
    assert shown["matrices clustered"] == f"{len(CLUSTERED)}, {n_kept} tensors kept as they are"
    assert shown["bits per weight"] == f"{found['bits_per_weight']:.3f}"
    assert shown["relative distortion"] == f"{found['relative_distortion']:.3e}"
    assert shown["protected weights"] == f"{found['n_protected']:,}"
    assert {"time", "peak memory", "size before", "size after"} <= shown.keys()


@pytest.mark.parametrize("option", ["--nodes", "--node-rate"])
def test_planning_options_need_a_dry_run(option, isotone, model, tmp_path):
    run = isotone("compress", model, tmp_path / "out", option, "3")
    assert (run.code, run.out) == (2, "")
    assert run.err == f"isotone: {option} is 3, and only --dry-run uses it; add --dry-run\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "value"), [("--address", "host:1"), ("--cores", 2)])
def test_options_of_a_cluster_need_its_engine(option, value, isotone, model, tmp_path):
    run = isotone("compress", model, tmp_path / "out", option, value)
    message = f"isotone: {option} is {value}, and the engine is local; add --engine ray\n"
    assert (run.code, run.out, run.err) == (2, "", message)


def test_an_unknown_engine_is_named(isotone, model, tmp_path):
    run = isotone("compress", model, tmp_path / "out", "--engine", "steam")
    assert (run.code, run.err) == (2, "isotone: engine is 'steam'; expected local or ray\n")
