"""Plans: what they may say, and where they are found."""

from __future__ import annotations

import pytest

from isotone.errors import InputError
from isotone.study.plan import parse_plan, plans, read_plan

GRID = '[[grid]]\nprotocol = "layer"\nedits = ["permute"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "is not TOML"),
        ("title = 'x'", "no [[grid]]"),
        ("title = 3\n" + GRID, "title is 3; expected a string"),
        ("colour = 1\n" + GRID, "'colour' is unknown"),
        ("[clustering]\nk = ['a']\n" + GRID, "k is 'a'; expected a whole number"),
        ("[clustering]\nbits = 3\n" + GRID, "'bits' is unknown"),
        ("grid = 3", "grid is 3; expected a list"),
        ('[[grid]]\nprotocol = "layers"\nedits = ["permute"]', "expected layer"),
        ('[[grid]]\nedits = ["permute"]', "protocol is missing"),
        ('[[grid]]\nprotocol = "layer"', "edits is missing"),
        ('[[grid]]\nprotocol = "layer"\nedits = []', "edits is empty"),
        (GRID.replace("permute", "permut"), "edit is 'permut'; expected permute"),
        (GRID.replace('"permute"', '{edit = "permute", width = 2}'), "has no parameter 'width'"),
        (GRID.replace('"permute"', '{edit = "tanh_warp", strength = "x"}'), "expected a number"),
        (GRID.replace('"permute"', "3"), "edit is 3; expected a string"),
        (GRID + 'corrections = ["mean"]', "corrections is 'mean'"),
        (GRID + "layers = 3", "layers is 3"),
        (GRID + "layers = {spread = 0}", "layers is"),
        (GRID + "layers = [true]", "layers is"),
        (GRID + "at_error = [0]", "at_error holds 0.0"),
        (GRID + "seeds = 0", "seeds is 0"),
        (GRID + "seeds = [-1]", "seeds is [-1]"),
        (GRID + "orders = ['last']", "'orders' is unknown here"),
        (GRID.replace("layer", "progressive") + "until = 1", "until is 1.0"),
        (GRID.replace("layer", "progressive") + "steps = [0]", "steps hold 0"),
        (GRID + GRID, "two grids are called 'layer'"),
    ],
)
def test_a_plan_that_says_nothing_of_sense_is_refused(text, said):
    with pytest.raises(InputError) as refused:
        parse_plan(text, "plan", "plan.toml")
    assert said in str(refused.value)
    assert "plan.toml" in str(refused.value)


def test_plans_are_found_by_name_or_file(tmp_path):
    assert set(plans()) >= {"paper", "controls", "quick"}
    (tmp_path / "own.toml").write_text(GRID, "utf-8")
    assert read_plan(tmp_path / "own.toml").name == "own"
    (tmp_path / "marked.toml").write_bytes(GRID.encode("utf-8-sig"))
    assert read_plan(tmp_path / "marked.toml").grids == read_plan(tmp_path / "own.toml").grids
    with pytest.raises(InputError, match=r"expected a \.toml file, or one of controls, paper"):
        read_plan("papr")
    with pytest.raises(InputError, match="cannot be read as a plan"):
        read_plan(tmp_path / "none.toml")
