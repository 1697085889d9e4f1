"""Charts as files that need no network."""

from __future__ import annotations

import struct
import zlib

import pytest

from isotone.errors import InputError
from isotone.reporting.frontier.chart import frontier_chart
from isotone.reporting.frontier.panel import HEIGHT, WIDTH
from isotone.reporting.page import Page, write_chart, write_page
from tests.builders.frontier_points import POINTS, point
from tests.builders.page_tags import Tags


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


@pytest.mark.parametrize("name", ["page", "page.htm", ".html", "page.html/"])
def test_a_page_has_the_name_of_a_page(tmp_path, name):
    with pytest.raises(InputError) as refused:
        write_page(Page("a"), f"{tmp_path}/{name}" if name != "page.html/" else tmp_path)
    assert "ends in .html" in str(refused.value)
