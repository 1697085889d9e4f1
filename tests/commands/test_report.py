"""`isotone report`: what it makes of a directory of results, and what it refuses."""

from __future__ import annotations

import json

import pytest

from tests.builders.study_records import BASE, run, unedited, write

RECORDS = [unedited(), *(run("permute", 10 * BASE, [layer]) for layer in (3, 12))]

PROTOCOL = {
    "model": "SmolLM2",
    "text": "text.txt",
    "context": 32,
    "dtype": "float32",
    "include": [],
    "exclude": ["*embed*"],
    "isotone": "0.1.0",
}


def point(kind, bits, perplexity):
    return {
        "kind": kind,
        "family": kind,
        "label": f"{bits} bits",
        "bits_per_weight": bits,
        "perplexity": perplexity,
        "kl": 0.1,
        "arguments": {},
        "n_tokens": 124,
        "protocol": PROTOCOL,
    }


POINTS = [point("dense", 16.0, 29.2), point("swept", 4.1, 31.6), point("swept", 3.1, None)]


def test_a_study_becomes_a_page(isotone, tmp_path):
    results = write(tmp_path / "study", RECORDS)
    out = tmp_path / "pages" / "study.html"
    found = isotone("report", results, out, "--title", "It's <mine>", "--json")
    assert (found.code, found.err) == (0, "")
    charts = ["sensitivity", "order", "error"]
    beside = [str(out.with_suffix("") / f"{c}.{kind}") for c in charts for kind in ("png", "csv")]
    assert found.json == {"charts": charts, "html": str(out), "files": [str(out), *beside]}
    page = out.read_text("utf-8")
    assert "<title>It&#39;s &lt;mine&gt;</title>" in page
    assert f"isotone report {results} {out} --title" in page


def test_paths_are_printed_for_people(isotone, tmp_path):
    results = write(tmp_path / "study", RECORDS)
    found = isotone("report", results, tmp_path / "study.html")
    assert found.code == 0
    assert found.out.splitlines()[:2] == [
        str(tmp_path / "study.html"),
        str(tmp_path / "study" / "sensitivity.png"),
    ]
    assert "SmolLM2: what is the order of its weights worth?" in (
        (tmp_path / "study.html").read_text("utf-8")
    )


def test_a_frontier_becomes_a_page(isotone, tmp_path):
    (tmp_path / "points.jsonl").write_text("".join(json.dumps(p) + "\n" for p in POINTS))
    found = isotone("report", tmp_path, tmp_path / "sweep.html", "--json")
    assert found.code == 0
    assert found.json["charts"] == ["frontier"]
    rows = (tmp_path / "sweep" / "frontier.csv").read_text("utf-8").splitlines()
    assert len(rows) == 1 + len(POINTS)
    page = (tmp_path / "sweep.html").read_text("utf-8")
    assert "4 windows of 32 tokens" in page
    assert "Kept dense: *embed*" in page


def test_a_torn_last_line_is_one_that_is_being_written(isotone, tmp_path):
    results = write(tmp_path / "study", RECORDS)
    with (results / "runs.jsonl").open("a") as file:
        file.write(json.dumps(RECORDS[-1])[:100])
    assert isotone("report", results, tmp_path / "out.html").code == 0


def without(record, *keys):
    return {key: value for key, value in record.items() if key not in keys}


BROKEN = {
    "no JSON": '{"kind": "edited"',
    "no object": "3",
    "another kind": '{"kind": "other"}',
    "no run": json.dumps({**RECORDS[1], "run": None}),
    "no drift": json.dumps(without(RECORDS[1], "drift")),
    "no layers": json.dumps({**RECORDS[1], "run": {**RECORDS[1]["run"], "layers": []}}),
    "text for a number": json.dumps({**RECORDS[1], "perplexity": "31"}),
    "text for the unedited": json.dumps({**RECORDS[0], "perplexity": "31"}),
    "no provenance": json.dumps(without(RECORDS[1], "provenance")),
    "an empty line": "",
    "not UTF-8": "\udcff",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_line_is_named(isotone, tmp_path, case):
    results = write(tmp_path / "study", RECORDS[:1])
    with (results / "runs.jsonl").open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"{BROKEN[case]}\n{json.dumps(RECORDS[1])}\n")
    found = isotone("report", results, tmp_path / "out.html")
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        f"isotone: {results}/runs.jsonl: line 2 is not a run that isotone study run wrote; "
        "remove that line\n"
    )
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize("bits", ['"3"', "null"])
def test_a_broken_point_is_named(isotone, tmp_path, bits):
    lines = [json.dumps(POINTS[0]), json.dumps(POINTS[1]).replace("4.1,", f"{bits},")]
    (tmp_path / "points.jsonl").write_text("\n".join(lines) + "\n")
    found = isotone("report", tmp_path, tmp_path / "out.html")
    assert found.code == 2
    assert "points.jsonl: line 2 is not a point that isotone frontier wrote" in found.err


def nothing(_):
    pass


def only_the_unedited(results):
    write(results, RECORDS[:1])


def an_empty_file(results):
    write(results, [])


def a_file(results):
    results.rmdir()
    results.write_text("")


REFUSED = {
    "an empty directory": (nothing, "holds neither runs.jsonl of isotone study run nor"),
    "nothing yet": (an_empty_file, "runs.jsonl: holds no result yet; let isotone study run go on"),
    "no edit yet": (only_the_unedited, "runs.jsonl: holds no result yet"),
    "a file": (a_file, "is not a directory"),
    "nowhere": (lambda results: results.rmdir(), "is not a directory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_one_line(isotone, tmp_path, case):
    prepare, message = REFUSED[case]
    (tmp_path / "results").mkdir()
    prepare(tmp_path / "results")
    found = isotone("report", tmp_path / "results", tmp_path / "out.html", "--json")
    assert (found.code, found.out) == (2, "")
    assert message in found.err
    assert found.err.count("\n") == 1
    assert not (tmp_path / "out.html").exists()


def test_a_page_needs_a_name_and_a_place(isotone, tmp_path):
    results = write(tmp_path / "study", RECORDS)
    found = isotone("report", results, tmp_path / "out")
    assert (found.code, found.err) == (
        2,
        f"isotone: {tmp_path}/out: expected a name that ends in .html\n",
    )
    (tmp_path / "out").write_text("in the way")
    found = isotone("report", results, tmp_path / "out.html")
    assert found.code == 2
    assert "cannot be written" in found.err
