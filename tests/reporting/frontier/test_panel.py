"""Which part of a measure is shown."""

from __future__ import annotations

from isotone.reporting.frontier.chart import WORST_KL
from isotone.reporting.frontier.panel import fit_panel
from tests.builders.frontier_points import point


def test_when_half_is_beyond_the_limit_it_is_raised():
    bad = [point(bits, 10.0 * bits, bits) for bits in (2.0, 3.0, 4.0, 5.0)]
    panel = fit_panel("kl", "", bad, limit=WORST_KL)
    assert [p["kl"] <= panel.limit for p in bad] == [True, True, False, False]
