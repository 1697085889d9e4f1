"""A study's page: what it claims, what it draws, and that it stands by itself."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
import vl_convert

from isotone.errors import InputError
from isotone.reporting.axis import fit_axis
from isotone.reporting.findings.claims import (
    NOT_MEASURED,
    claims,
    collapsing,
    keeping,
    ranking,
    scrambling,
    uncorrected,
)
from isotone.reporting.findings.correlation import rank_correlation
from isotone.reporting.findings.equal_error import equal_errors, explained
from isotone.reporting.findings.survival import survivals
from isotone.reporting.page import Page, write_page
from isotone.reporting.study.families import BROKEN, KEPT, NOISE
from isotone.reporting.study.formatting import spans
from isotone.reporting.study.page import study_page
from isotone.reporting.study.runs import middle, study_runs
from tests.builders.study_records import BASE, N_LAYERS, run, study, unedited

CHARTS = ["sensitivity", "order", "types", "dose", "collapse", "drift", "error"]


def runs(*records):
    return study_runs([unedited(), *records])


def times(edit, multiple, layer, **its):
    return run(edit, None if multiple is None else multiple * BASE, [layer], **its)


# Runs


def test_damage_is_against_the_unedited_model_of_the_same_clustering():
    found = study_runs(
        [unedited(16, 40.0), unedited(64, 20.0), run("permute", 80.0, k=16), run("permute", 80.0)]
    )
    assert [(each.k, each.damage) for each in found] == [(16, 2.0), (64, 4.0)]


def test_a_run_without_its_unedited_model_is_left_out_and_counted():
    records = [unedited(64), run("permute", 80.0, k=16), run("permute", 80.0)]
    assert [each.k for each in study_runs(records)] == [64]
    (line,) = [x for x in study_page(records, title=None, command="").left_out if "runs" in x]
    assert line.startswith("1 runs, whose clustering has no finite perplexity unedited")


@pytest.mark.parametrize("perplexity", [None, math.inf, math.nan])
def test_a_collapsed_model_is_worse_than_any_number(perplexity):
    record = run("permute", None)
    record["perplexity"] = perplexity
    assert runs(record)[0].damage == math.inf


@pytest.mark.parametrize(
    ("damages", "expected"),
    [([3.0], 3.0), ([1.0, 100.0], 10.0), ([1.0, 7.0, math.inf], 7.0), ([1.0, math.inf], math.inf)],
)
def test_the_median_of_multiples(damages, expected):
    assert middle(damages) == expected


def test_spans():
    assert spans([8]) == "8"
    assert spans([29, 28]) == "28, 29"
    assert spans([1, 2, 3, 7, 9, 8]) == "1–3, 7–9"


# Claims, by hand. The model has 30 layers: those from 10 on are middle and late.


def test_scrambling_counts_middle_and_late_layers_by_their_medians():
    claim = scrambling(
        runs(
            times("permute", 1000, 9),  # early
            times("permute", 4, 10, seed=0),
            times("permute", 100, 10, seed=1),  # with the other: 20
            times("permute", 2, 20),
            times("permute", 5000, 20, at_error=0.1),  # scaled: another question
            times("permute", 5000, 20, correction="none"),
            times("permute_window", 5000, 20),
        )
    )
    assert claim.shows.startswith("Holds in part. 50% of the middle and late layers")
    assert claim.figures == (
        "K = 64, permute: 4.00 times the unedited perplexity (2.00 to 100); ten times or more in "
        "1 of 2 layers (50%)",
    )


def test_keeping_says_what_early_layers_show():
    claim = keeping(
        runs(
            times("sorted_normal", 4, 1),
            times("sorted_uniform", 1.5, 2),
            times("sorted_normal", 1.1, 3),
            *(times("sorted_normal", 1.0625, layer) for layer in range(10, 29)),
            times("sorted_normal", 1.25, 29),
        )
    )
    assert claim.shows == (
        "Holds. 95% of the middle and late layers stay below +15%. Of the early ones 1 of 3 do; "
        "the worst, layer 1 with sorted_normal at K = 64, goes to 4.00 times."
    )
    assert claim.figures == (
        "K = 64, sorted_normal: 1.062 times the unedited perplexity (1.062 to 1.250); below +15% "
        "in 19 of 20 layers (95%)",
    )


def test_without_correction_collapsed_runs_count():
    claim = uncorrected(
        runs(
            times("sorted_normal", 1e6, 3, correction="none"),
            times("sorted_uniform", None, 20, correction="none"),
            times("sorted_normal", 1.0, 20),
        )
    )
    assert claim.shows.startswith("Holds. All of the layers")
    assert claim.figures == (
        "K = 64, sorted_normal: 1,000,000 times the unedited perplexity (1,000,000 to 1,000,000); "
        "ten times or more in 1 of 1 layers (100%)",
        "K = 64, sorted_uniform: not finite times the unedited perplexity (not finite to not "
        "finite); ten times or more in 1 of 1 layers (100%)",
    )


def test_an_edit_that_is_borne_is_not_drowned_by_one_that_ruins():
    """One layer, two edits: their common median would be ruined, and is none of the two."""
    claim = uncorrected(
        runs(
            times("sorted_normal", 1e8, 20, correction="none"),
            times("sorted_empirical", 1.1, 20, correction="none"),
        )
    )
    assert claim.shows.startswith("Holds in part. 50% of the layers")
    assert [line.split(":")[0] for line in claim.figures] == [
        "K = 64, sorted_empirical",
        "K = 64, sorted_normal",
    ]


def replaced(multiples, **its):
    """A progressive replacement from the last layer; the RMS grows by a tenth with each layer."""
    for n, multiple in enumerate(multiples, 1):
        layers = list(range(N_LAYERS - n, N_LAYERS))[::-1]
        growth = [1.0] * (N_LAYERS - 1) + [None if multiple is None else 1 + n / 10]
        values = {"protocol": "progressive", "order": "last", "growth": growth, **its}
        yield run("sorted_normal", None if multiple is None else multiple * BASE, layers, **values)


REPLACED = [
    *replaced([None], correction="none", seed=0),
    *replaced([1.5, 1e6], correction="none", seed=1),
    *replaced([1.2, 1.9, 2.0, 3.0], seed=0),
    *replaced([1.2, 1.4, 1.9, 1.99, 2.5], seed=1),
    *replaced([1.1] * N_LAYERS, seed=2),
]


def test_survival_by_hand():
    none, moments = survivals(runs(*REPLACED))
    assert (none.correction, none.survivals, none.median) == ("none", (1, 2), 1.5)
    assert none.growth == math.inf
    assert moments.survivals == (3, 5, math.inf)
    assert moments.median == 5
    assert moments.growth == pytest.approx(1.4)  # of 1.3 and 1.5
    assert moments.shown(math.inf) == "> 30"
    assert [moments.shown(n) for n in (3, 1.5)] == ["3", "1.5"]


def test_collapse_is_compared_pair_by_pair():
    claim = collapsing(runs(*REPLACED))
    assert claim.shows.startswith("Holds. A correction delays it in 1 of 1 comparisons")
    assert claim.figures == (
        "K = 64, uncorrected: doubled after 1.5 replaced layers, the stream's RMS then not finite",
        "K = 64, moments restored: doubled after 5 replaced layers, the stream's RMS then × 1.4",
    )
    undone = collapsing(runs(*replaced([3.0], correction="none"), *replaced([2.5])))
    assert undone.shows.startswith("Does not hold.")


EQUAL = [
    *(
        times(edit, 1 + cost * error, layer, at_error=error, relative_error=error, spearman=rho)
        for error in (0.1, 0.4)
        for layer in (8, 20)
        for edit, cost, rho in (
            ("power_warp", 1.0, 1.0),
            ("gaussian_noise", 2.0, 0.9),
            ("permute", 5.0, 0.5),
        )
    )
]


def test_damage_at_equal_errors():
    least, most = equal_errors(runs(*EQUAL))
    assert (least.k, least.at_error, most.at_error) == (64, 0.1, 0.4)
    assert list(most.cells) == [KEPT, NOISE, BROKEN]
    assert most.cells[KEPT].damage == pytest.approx(1.4)
    assert most.cells[BROKEN].damage == pytest.approx(3.0)
    assert (most.cells[NOISE].spearman, most.cells[NOISE].n) == (0.9, 2)


def test_runs_that_missed_their_error_are_not_compared_at_it():
    missed = times("power_warp", 9.0, 8, at_error=0.8, relative_error=0.6)
    near = times("permute", 3.0, 8, at_error=0.8, relative_error=0.81)
    (row,) = equal_errors(runs(missed, near))
    assert {name: cell.damage for name, cell in row.cells.items()} == {BROKEN: 3.0}
    page = study_page([unedited(), missed, near], title=None, command="")
    (note,) = [table.note for table in page.tables if table.heading.startswith("Damage at")]
    assert note.endswith("Left out: 1 runs that missed their error by more than 5%.")


def test_ranking_by_hand():
    claim = ranking(runs(*EQUAL))
    assert claim.shows == (
        "Holds. At the same relative error a broken order costs more than a kept one at "
        "2 of 2 errors."
    )
    # Each damage stands for two layers, in the order 1.1, 1.2, 1.4, 1.5, 1.8, 3.0.
    error = rank_correlation([0.1, 0.1, 0.4, 0.1, 0.4, 0.4], [1, 2, 3, 4, 5, 6])
    order = rank_correlation([1, 0.9, 1, 0.5, 0.9, 0.5], [1, 2, 3, 4, 5, 6])
    assert claim.figures == (
        "K = 64: 1.500 times with the order broken and 1.100 with it kept at error 0.1, 3.00 and "
        "1.400 at error 0.4",
        "K = 64, 12 single-layer runs with moments restored: rank correlation of damage with "
        f"relative error {error:+.2f}, with the codebook's rho {order:+.2f} (within a layer, "
        f"median: {error:+.2f} and {order:+.2f})",
    )
    (found,) = explained(runs(*EQUAL))
    assert found.with_error > 0 > found.with_order


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3, 4], [10, 30, 20, math.inf]) == pytest.approx(0.8)
    assert rank_correlation([1, 1, 2], [3, 3, 9]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [9, 4, 1]) == pytest.approx(-1.0)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1, 2], [1, 2]) is None


def test_what_was_not_measured_is_said():
    found = claims(runs(times("even_spacing", 1.0, 8, correction="range")))
    assert [claim.shows for claim in found[:4]] == [NOT_MEASURED] * 4
    assert not any(claim.figures for claim in found)


# Axes


def test_what_lies_beyond_an_axis_is_at_its_edge():
    axis = fit_axis([1.0, 50.0, 1e9, math.inf, 1e-5], most=1e3, least=0.5)
    assert axis.low < axis.level(1e-5) < 1.0
    assert axis.level(50.0) == 50.0
    assert 50.0 < axis.level(1e9) == axis.level(math.inf) < axis.high < 1e3
    assert [axis.is_beyond(value) for value in (50.0, 1e9, math.inf)] == [False, True, True]


@pytest.mark.parametrize("high", [1.01, 20.0, 1e3, 1e5, 1e12])
def test_one_is_a_tick_of_every_axis(high):
    ticks = fit_axis([1.0, high], most=math.inf).ticks()
    assert 1.0 in ticks
    assert len(ticks) <= 10


# Charts and the page


class Tags(HTMLParser):
    """All tags with their attributes, and all text outside of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text, self.inside = [], "", ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def page():
    records = study(sizes=(64,), layers=range(0, 30, 3), seeds=range(2))
    return study_page(records, title="A <title> & more", command="isotone report 'a b' out.html")


@pytest.fixture(scope="module")
def files(page, tmp_path_factory):
    return write_page(page, tmp_path_factory.mktemp("report") / "made" / "study.html")


def test_every_protocol_has_its_charts(page):
    assert [figure.name for figure in page.figures] == CHARTS
    assert page.left_out == []
    assert [table.heading.split(":")[0] for table in page.tables] == [
        "Claims",
        "Survival",
        "Damage at the same relative error of the weights",
    ]


def test_pictures_and_data_lie_beside_the_page(page, files):
    html, *others = files
    folder = html.with_suffix("")
    expected = [folder / f"{name}.{kind}" for name in CHARTS for kind in ("png", "csv")]
    assert others == expected
    assert sorted(folder.iterdir()) == sorted(expected)
    assert sorted(path.name for path in html.parent.iterdir()) == ["study", "study.html"]
    for figure in page.figures:
        assert (folder / f"{figure.name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        text = (folder / f"{figure.name}.csv").read_text("utf-8")
        read = list(csv.DictReader(io.StringIO(text, newline="")))
        written = [
            {key: "" if value is None else str(value) for key, value in row.items()}
            for row in figure.rows
        ]
        assert read == written
        assert read


def test_the_study_page_stands_by_itself(files):
    text = files[0].read_text("utf-8")
    tags = Tags(text).found
    assert [attributes for tag, attributes in tags if tag == "script"] == [{}, {}]
    assert not {tag for tag, _ in tags} & {"link", "iframe", "img", "object", "base", "form"}
    links = [attributes["href"] for tag, attributes in tags if "href" in attributes]
    assert len(links) == 2 * len(CHARTS)
    assert all(link.startswith(("data:image/png;base64,", "data:text/csv;")) for link in links)
    assert not any("src" in attributes for _, attributes in tags)
    policy = [a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert [part for part in policy[0].split("; ") if "http" in part or "*" in part] == []
    assert policy[0].startswith("default-src 'none'")
    assert "@import" not in text
    text = re.sub(r"base64,[\w+/=]+", "", text)
    assert "cdn" not in text.lower()
    # Names of namespaces, of schemas and of licenses: nothing that a browser would fetch.
    outside = set(re.findall(r"https?://([\w.-]+)", text))
    assert outside <= {"www.w3.org", "vega.github.io", "github.com", "vega.org"}, outside


def test_what_is_offered_on_the_page_is_what_lies_beside_it(files):
    tags = Tags(files[0].read_text("utf-8")).found
    for attributes in (attributes for tag, attributes in tags if tag == "a"):
        content = base64.b64decode(attributes["href"].split("base64,")[1])
        assert (files[0].with_suffix("") / attributes["download"]).read_bytes() == content


def test_the_page_says_what_was_measured_and_how_to_make_it_again(files):
    text = Tags(files[0].read_text("utf-8")).text
    for said in ("SmolLM2", "wikitext2-test.txt", "31.500 at K = 64", "torch 2.13.0"):
        assert said in text
    assert "isotone report 'a b' out.html" in text
    assert "A <title> & more" in text
    for name in CHARTS:
        assert f"{name}.csv" in text


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


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([times("permute", 3, 8)], ["sensitivity", "order", "error"]),
        ([*replaced([1.5])], ["collapse", "drift"]),
        ([run("permute", 90.0, [1, 2], protocol="type", types=["mlp.up_proj"])], ["types"]),
        ([run("permute", 90.0, [1, 2], protocol="together")], []),
    ],
)
def test_charts_without_runs_are_left_out_in_one_line(records, expected, tmp_path):
    page = study_page([unedited(), *records], title=None, command="")
    assert [figure.name for figure in page.figures] == expected
    for name in set(CHARTS) - set(expected):
        assert [line for line in page.left_out if line.startswith(f"No chart {name}: no ")]
    html, *others = write_page(page, tmp_path / "page.html")
    assert len(others) == 2 * len(expected)
    for line in page.left_out:
        assert line in Tags(html.read_text("utf-8")).text


HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(1)">'


def test_hostile_names_stay_text(tmp_path):
    records = [unedited(), *(times(f"sorted_{HOSTILE}", 2.0, layer) for layer in (3, 12))]
    records += replaced([1.5, 2.5], types=[HOSTILE])
    records += [run("permute", 90.0, [1, 2], protocol="type", types=[HOSTILE])]
    for record in records:
        record["provenance"] = {**record["provenance"], "model": HOSTILE, "text": HOSTILE}
    page = study_page(records, title=HOSTILE, command=HOSTILE)
    html = write_page(page, tmp_path / "page.html")[0].read_text("utf-8")
    tags = Tags(html)
    assert [attributes for tag, attributes in tags.found if tag == "script"] == [{}, {}]
    assert "img" not in {tag for tag, _ in tags.found}
    assert HOSTILE in tags.text
    assert not [a for _, a in tags.found if any(key.startswith("on") for key in a)]


def test_the_same_records_make_the_same_page(tmp_path):
    records = [unedited(), times("permute", 3, 8), *replaced([1.5, None])]
    made = [
        write_page(study_page(records, title=None, command=""), tmp_path / name / "page.html")
        for name in ("a", "b")
    ]
    for ours, theirs in zip(*made, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("name", ["page", "page.htm", ".html", "page.html/"])
def test_a_page_has_the_name_of_a_page(tmp_path, name):
    with pytest.raises(InputError) as refused:
        write_page(Page("a"), f"{tmp_path}/{name}" if name != "page.html/" else tmp_path)
    assert "ends in .html" in str(refused.value)
