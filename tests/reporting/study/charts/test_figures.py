"""The charts of a study: they compile, and collapsed runs are drawn too."""

from __future__ import annotations

import json
import math
import re

import pytest
import vl_convert

from isotone.reporting.study.page import study_page
from tests.builders.study_records import replaced, run, study, times, unedited


def test_every_chart_compiles_and_its_legend_can_be_clicked(page):
    for figure in page.figures:
        compiled = vl_convert.vegalite_to_vega(figure.chart.to_dict())
        legends = [legend for legend in compiled["legends"] if "encode" in legend]
        labels = [legend["encode"].get("labels", {}) for legend in legends]
        assert any(label.get("interactive") for label in labels), figure.name
        json.dumps(compiled, allow_nan=False)


def facets(mark):
    """The data of all lines below a mark of Vega."""
    for child in mark.get("marks", []):
        if "facet" in child.get("from", {}):
            yield child["from"]["facet"]["name"], child["from"]["facet"]["data"]
        yield from facets(child)


def test_each_panel_draws_its_own_lines():
    """Altair renames views in concatenations: two of one name would draw the data of the last."""
    records = study(sizes=(16, 64), layers=range(0, 30, 6), seeds=range(1))
    for figure in study_page(records, title=None, command="").figures:
        spec = figure.chart.to_dict()
        n_panels = sum(len(row["hconcat"]) for row in spec["vconcat"])
        found = list(facets(vl_convert.vegalite_to_vega(spec)))
        thick = {name: data for name, data in found if "_lines" in name}
        if figure.name not in ("order", "types"):  # strips have no lines
            assert len(thick) == len(set(thick.values())) == n_panels, figure.name
        views = re.findall(r'"name": "(\w+_(?:lines|ticks)_\d+)"', json.dumps(spec))
        assert len(set(views)) == n_panels, figure.name


def test_a_group_has_its_label_where_only_other_panels_have_runs_of_it():
    records = [unedited(16), unedited(64), times("permute", 3, 8, k=16)]
    records += [times(edit, 2, 8) for edit in ("permute", "reverse")]
    (order,) = (f for f in study_page(records, title=None, command="").figures if f.name == "order")
    (row,) = order.chart.to_dict()["vconcat"]
    for panel in row["hconcat"]:
        domains = [layer["encoding"].get("y", {}).get("scale") for layer in panel["layer"][1:]]
        groups = ["reverse; moments restored", "permute; moments restored"]
        assert domains == [{"domain": groups}] * len(domains)


def values(spec):
    """All rows that a chart carries, under whatever name."""
    found = list(spec.get("datasets", {}).values())
    if isinstance(spec.get("data"), dict) and "values" in spec["data"]:
        found.append(spec["data"]["values"])
    for key in ("vconcat", "hconcat", "layer"):
        for child in spec.get(key, []):
            found += values(child)
    return found


def drawn(figure):
    return [row for rows in values(figure.chart.to_dict()) for row in rows if "edit" in row]


COLLAPSED = {
    "sensitivity": [times("permute", None, 8), times("permute", 2, 9)],
    "order": [times("permute", None, 8), times("permute", 2, 9)],
    "types": [run("permute", None, [8, 9], protocol="type", types=["mlp.up_proj"])],
    "dose": [
        times("to_spearman", None, 8, parameters={"rho": 0.5}, spearman=0.5),
        times("to_spearman", 2, 8, parameters={"rho": 0.9}, spearman=0.9),
    ],
    "collapse": [*replaced([1.5, None])],
    "error": [times("permute", None, 8, at_error=0.1), times("permute", 2, 8, at_error=0.2)],
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_a_collapsed_run_is_drawn_as_a_triangle_at_the_edge(name):
    page = study_page([unedited(), *COLLAPSED[name]], title=None, command="")
    (figure,) = (figure for figure in page.figures if figure.name == name)
    beyond = [row for row in drawn(figure) if row["beyond"]]
    assert beyond
    assert {row["perplexity"] for row in beyond} == {"not finite"}
    assert all(0 < row["level"] < math.inf for row in drawn(figure))
    assert "triangle" in json.dumps(figure.chart.to_dict())
    assert vl_convert.vegalite_to_svg(figure.chart.to_dict()).startswith("<svg")
    assert "" in {row.get("perplexity") or "" for row in figure.rows}  # empty in CSV


def test_streams_that_are_not_finite_are_drawn_at_the_edges():
    page = study_page([unedited(), *replaced([1.5, None])], title=None, command="")
    (figure,) = (figure for figure in page.figures if figure.name == "drift")
    rows = [row for rows in values(figure.chart.to_dict()) for row in rows if "growth" in row]
    assert {row["beyond"] for row in rows} == {"", "up", "down"}
    assert {row["growth"] for row in rows if row["beyond"]} == {"not finite"}
