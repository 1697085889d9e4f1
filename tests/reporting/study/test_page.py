"""A study's page: what is on it, what lies beside it, and that it stands by itself."""

from __future__ import annotations

import base64
import csv
import io
import re

import pytest

from isotone.reporting.page import write_page
from isotone.reporting.study.page import study_page
from tests.builders.page_tags import Tags
from tests.builders.study_records import replaced, run, times, unedited

CHARTS = ["sensitivity", "order", "types", "dose", "collapse", "drift", "error"]


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
