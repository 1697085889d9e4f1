"""Charts: what is drawn where, and files that need no network."""

from __future__ import annotations

import json
import struct
import zlib
from html.parser import HTMLParser

import pytest
import vl_convert

from isotone.errors import InputError
from isotone.reporting.frontier.chart import WORST_KL, frontier_chart
from isotone.reporting.frontier.labels import PLACES, Name, box_of, place
from isotone.reporting.frontier.panel import HEIGHT, WIDTH, fit_panel
from isotone.reporting.page import write_chart

DENSE = 29.19


def point(bits, perplexity, kl=0.1, *, family="isotone", label="a", kind="swept"):
    return {
        "kind": kind,
        "family": family,
        "label": label,
        "bits_per_weight": bits,
        "perplexity": perplexity,
        "kl": kl,
    }


POINTS = [
    point(16.0, DENSE, 0.0, kind="dense", family="dense"),
    point(3.1, 46.0, 0.5, label="3.1 bits"),
    point(4.1, 32.0, 0.09, label="4.1 bits"),
    point(3.6, 126657.0, 9.2, family="plain", label="K = 16"),
    point(4.25, 37.1, 0.28, family="NF4", label="block 64", kind="peer"),
    point(3.0, None, None, family="NF4", label="3-bit", kind="peer"),
]


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


def test_when_half_is_beyond_the_limit_it_is_raised():
    bad = [point(bits, 10.0 * bits, bits) for bits in (2.0, 3.0, 4.0, 5.0)]
    panel = fit_panel("kl", "", bad, limit=WORST_KL)
    assert [p["kl"] <= panel.limit for p in bad] == [True, True, False, False]


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


# Names


def test_names_cover_nothing_where_there_is_room():
    at = [(60.0 + 90 * i, 60.0 + 90 * j) for i in range(4) for j in range(4)]
    names = [Name(x, y, "K = 16", needed=False) for x, y in at]
    places = place(names, (WIDTH, HEIGHT), at, [at[:4]])
    boxes = [box_of(name, its) for name, its in zip(names, places, strict=True)]
    assert not any(a.meets(b) for a in boxes for b in boxes if a is not b)
    assert not any(box.holds(x, y) for box in boxes for x, y in at)


def test_in_a_crowd_only_the_needed_names_stay():
    at = [(100.0 + 4 * i, 100.0) for i in range(40)]
    names = [Name(x, y, "a long name", needed=i == 20) for i, (x, y) in enumerate(at)]
    places = place(names, (WIDTH, HEIGHT), at, [])
    assert places[20] in PLACES
    assert None in places


@pytest.mark.parametrize("x", [2.0, WIDTH - 2.0])
@pytest.mark.parametrize("y", [25.0, HEIGHT - 25.0])
def test_names_stay_inside(x, y):
    (its,) = place([Name(x, y, "a long name", needed=True)], (WIDTH, HEIGHT), [(x, y)], [])
    box = box_of(Name(x, y, "a long name", needed=True), its)
    assert 0 <= box.left < box.right <= WIDTH
    assert 0 <= box.top < box.bottom <= HEIGHT


# Files


class Tags(HTMLParser):
    """All tags with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    hostile = point(4.0, 40.0, label="</script><script>alert(1)</script>", kind="peer")
    chart = frontier_chart([*POINTS, hostile], title="<b>a</b> & b", caption="c")
    return write_chart(chart, tmp_path_factory.mktemp("report") / "made", "name")


def test_the_page_stands_by_itself(files):
    page = files[0].read_text("utf-8")
    tags = Tags(page).found
    assert [attributes for tag, attributes in tags if tag == "script"] == [{}, {}]
    assert not {tag for tag, _ in tags} & {"link", "iframe", "img", "object", "base"}
    assert "cdn" not in page.lower()
    assert "@import" not in page
    assert "<title>&lt;b&gt;a&lt;/b&gt; &amp; b</title>" in page
    assert "alert(1)" in page  # as text of the chart, in neither of two scripts


def chunks(png):
    at = 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        content = png[at + 8 : at + 8 + length]
        checksum = struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0]
        assert checksum == zlib.crc32(kind + content)
        yield kind, content
        at += 12 + length


def test_the_picture_is_the_chart_at_twice_its_size(files):
    png = files[1].read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found = dict(chunks(png))
    assert list(found) == [b"IHDR", *(found.keys() - {b"IHDR", b"IDAT", b"IEND"}), b"IDAT", b"IEND"]
    width, height = struct.unpack(">II", found[b"IHDR"][:8])
    assert 4 * WIDTH < width < 4 * WIDTH + 600
    assert 2 * HEIGHT < height < 2 * HEIGHT + 600
    assert len(zlib.decompress(found[b"IDAT"])) == height * (1 + 4 * width)


def test_only_the_files_are_left(files):
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["name.html", "name.png"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    chart = frontier_chart(POINTS[:2], title="a", caption="b")
    with pytest.raises(InputError, match="cannot be written"):
        write_chart(chart, tmp_path / "file", "name")


def test_points_are_json(spec):
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec
