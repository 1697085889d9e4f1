"""The study's page in a real browser, where there is one: drawn, hovered, filtered, zoomed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from isotone.reporting.page import write_page
from isotone.reporting.study.page import study_page
from tests.builders.study_records import study

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")

# Waits until every chart is drawn, then does to each what a reader would, and notes what comes.
READER = """
const found = {refused: [], charts: []};
addEventListener("securitypolicyviolation", (event) => found.refused.push(event.blockedURI));
addEventListener("error", (event) => found.refused.push(event.message));
const marks = (chart) => [...chart.querySelectorAll("g.mark-symbol.role-mark path")];
const ticks = (chart) =>
  [...chart.querySelectorAll("g.role-axis-label text")].map((label) => label.textContent).join();
function fire(element, ...types) {
  const box = element.getBoundingClientRect();
  const at = {bubbles: true, cancelable: true, view: window,
    clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, deltaY: -300};
  for (const type of types) {
    const kinds = {pointer: PointerEvent, wheel: WheelEvent};
    element.dispatchEvent(new (kinds[type.slice(0, 7)] || kinds[type] || MouseEvent)(type, at));
  }
}
const pause = () => new Promise((done) => setTimeout(done, 500));
async function read(chart) {
  chart.scrollIntoView();
  const before = marks(chart);
  const mark = before[before.length >> 1];
  fire(mark, "pointerover", "pointermove", "mouseover", "mousemove");
  const shown = document.querySelector("#vg-tooltip-element");
  const tooltip = shown.textContent;
  shown.textContent = "";
  const name = chart.querySelector("g.role-legend-label text");
  fire(name, "pointerdown", "pointerup", "mousedown", "mouseup", "click");
  await pause();
  const filtered = marks(chart).length;
  const old = ticks(chart);
  fire(marks(chart)[0], "pointerover", "mouseover", "pointermove", "mousemove", "wheel");
  await pause();
  found.charts.push({tooltip, all: before.length, filtered, zoomed: old !== ticks(chart)});
}
const wait = setInterval(async () => {
  const charts = [...document.querySelectorAll(".chart")];
  if (charts.some((chart) => !chart.querySelector("svg.marks"))) return;
  clearInterval(wait);
  await pause();
  for (const chart of charts) await read(chart);
  document.title = "found " + JSON.stringify(found);
}, 200);
"""


def test_every_chart_answers_to_its_reader(tmp_path):
    records = study(sizes=(64,), layers=range(0, 30, 3), seeds=range(2))
    page = study_page(records, title="A study", command="")
    html = write_page(page, tmp_path / "page.html")[0]
    html.write_text(html.read_text("utf-8") + f"<script>{READER}</script>", "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=100000"]
    shown = subprocess.run(
        [BROWSER, *options, f"--user-data-dir={tmp_path}/profile", "--dump-dom", html.as_uri()],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout
    (title,) = re.findall(r"<title>found (.*)</title>", shown)
    found = json.loads(unescape(title))
    assert found["refused"] == []
    assert len(found["charts"]) == len(page.figures)
    for figure, chart in zip(page.figures, found["charts"], strict=True):
        assert "K, seed" in chart["tooltip"] or "layers replaced" in chart["tooltip"], figure.name
        assert 0 < chart["filtered"] < chart["all"], figure.name
        assert chart["zoomed"], figure.name
