"""`isotone decompress` as text: one line with the tensors, the size and the rate."""

from __future__ import annotations

import re

from isotone.cli.console import size
from tests.builders.checkpoints import one_of_each


def test_one_line_says_what_was_written(isotone, compressed, tmp_path):
    out = tmp_path / "dense"
    run = isotone("decompress", compressed, out)
    assert (run.code, run.err) == (0, "")
    amount = r"[\d.]+ [kMG]?B"
    pattern = rf"{re.escape(str(out))}: (\d+) tensors, ({amount}) in [\d.]+ s \({amount}/s\)\n"
    found = re.fullmatch(pattern, run.out)
    assert found
    assert int(found[1]) == len(one_of_each())
    assert found[2] == size(sum(path.stat().st_size for path in out.glob("*.safetensors")))


def test_sizes_have_three_digits():
    sizes = {0: "0 B", 999: "999 B", 1000: "1 kB", 12345: "12.3 kB", 5.5e9: "5.5 GB"}
    assert {n: size(n) for n in sizes} == sizes
