"""The frontier's chart: what is drawn where."""

from __future__ import annotations

import json

import pytest
import vl_convert

from isotone.reporting.frontier.chart import frontier_chart
from isotone.reporting.frontier.panel import HEIGHT, WIDTH, fit_panel
from tests.builders.frontier_points import DENSE, POINTS


@pytest.fixture(scope="module")
def spec():
    return frontier_chart(POINTS, title="A title", caption="Words. " * 60).to_dict()


def panels(spec):
    return spec["vconcat"][0]["hconcat"]


def rows(spec, layer):
    data = layer["data"]
    return spec["datasets"][data["name"]] if "name" in data else data["values"]


def drawn(spec, panel):
    """The points of a panel by family and label."""
    (layer,) = (x for x in panel["layer"] if x["mark"].get("shape") == "triangle-up")
    return {(row["family"], row["label"]): row for row in rows(spec, layer)}


def test_the_dense_model_is_a_dashed_line_across_the_first_panel(spec):
    first, second = panels(spec)
    (rule,) = (layer for layer in first["layer"] if layer["mark"]["type"] == "rule")
    assert [row["level"] for row in rows(spec, rule)] == [DENSE]
    assert rule["mark"]["strokeDash"]
    low, high = rule["encoding"]["y"]["scale"]["domain"]
    assert low < DENSE < high
    assert "rule" not in [layer["mark"]["type"] for layer in second["layer"]]


def test_axes_are_logarithmic_and_not_squashed_by_a_collapsed_point(spec):
    for panel, key in zip(panels(spec), ("perplexity", "kl"), strict=True):
        scale = panel["layer"][-1]["encoding"]["y"]["scale"]
        assert scale["type"] == "log"
        low, high = scale["domain"]
        found = drawn(spec, panel)
        collapsed = found.pop(("plain", "K = 16"))
        assert collapsed["beyond"]
        assert low < collapsed["level"] < high
        assert collapsed["value"] > high
        for row in found.values():
            assert low < row["level"] == row["value"] < collapsed["level"]
            assert not row["beyond"]
        assert high < 1.3 * max(p[key] for p in POINTS[1:3] + POINTS[4:5])


def test_a_collapsed_point_says_its_figure(spec):
    names = [drawn(spec, panel)["plain", "K = 16"]["name"] for panel in panels(spec)]
    assert names == ["K = 16: 126,657", "K = 16: 9.2"]


def test_what_has_no_perplexity_is_named_below(spec):
    assert all(("NF4", "3-bit") not in drawn(spec, panel) for panel in panels(spec))
    text = rows(spec, spec["vconcat"][1])[0]["text"]
    assert text[-1] == "Not drawn, without a finite perplexity: NF4, 3-bit."
    assert len(text) > 3  # wrapped


def test_pixels_are_those_of_vega(spec):
    """The names are placed by our own scales: a point at a corner of the domain is at a corner."""
    panel = fit_panel("perplexity", "", POINTS, limit=2 * DENSE, lines=[DENSE])
    low, high = panel.domain
    assert panel.pixel(panel.bits[0], low) == pytest.approx((0.0, HEIGHT))
    middle = panel.pixel(sum(panel.bits) / 2, (low * panel.level(high * 2)) ** 0.5)
    assert middle[0] == pytest.approx(WIDTH / 2)
    encoding = panels(spec)[0]["layer"][-1]["encoding"]
    assert encoding["x"]["scale"]["domain"] == list(panel.bits)
    assert encoding["y"]["scale"]["domain"] == list(panel.domain)


def test_lines_are_for_what_was_swept(spec):
    (line,) = (layer for layer in panels(spec)[0]["layer"] if layer["mark"]["type"] == "line")
    assert {"filter": "datum.swept && !datum.beyond"} in line["transform"]
    swept = {row["label"] for row in rows(spec, line) if row["swept"]}
    assert swept == {"3.1 bits", "4.1 bits", "K = 16"}
    color = line["encoding"]["color"]["scale"]
    assert color["domain"] == ["isotone", "plain", "NF4"]
    assert len(set(color["range"])) == 3


def test_the_legend_can_be_clicked(spec):
    """Vega-Lite drops the click where the parameter is not in the first layer with colours."""
    compiled = vl_convert.vegalite_to_vega(spec)
    (legend,) = compiled["legends"]
    assert legend["encode"]["labels"]["interactive"] is True
    for panel in panels(spec):
        for layer in panel["layer"]:
            filters = {"filter": {"param": "clicked"}} in layer.get("transform", [])
            assert filters == ("color" in layer["encoding"]), layer["mark"]


@pytest.mark.parametrize("points", [[], POINTS[:1], POINTS[-2:], POINTS[-1:], POINTS[1:2]])
def test_few_points_are_drawn_too(points):
    spec = frontier_chart(points, title="", caption="").to_dict()
    assert vl_convert.vegalite_to_svg(spec).startswith("<svg")


def test_points_are_json(spec):
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec
