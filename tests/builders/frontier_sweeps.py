"""A small sweep over the tiny language model, for the tests of `isotone frontier`."""

from __future__ import annotations

import json

from isotone.evaluation.frontier.results import POINTS_FILE
from isotone.evaluation.frontier.sweep import frontier
from isotone.evaluation.frontier.variants import frontier_variants

PROTOCOL = {"context": 32, "windows": 4}
ARGUMENTS = ("--context", 32, "--windows", 4, "--bits", "3.5", "--k", "6")
N_POINTS = 4  # the dense model, one size, and one K in two ways

NF4 = {"family": "NF4", "label": "block 64", "bits_per_weight": 4.25, "perplexity": 37.1}


def swept(language_models, results, **changes):
    options = {"variants": frontier_variants([3.5], [6]), **PROTOCOL, **changes}
    return frontier(language_models.dense, results, language_models.text, **options)


def lines(results):
    return (results / POINTS_FILE).read_bytes().splitlines(keepends=True)


def written_points(path, *points):
    path.write_text("".join(json.dumps(point) + "\n" for point in points))
    return path
