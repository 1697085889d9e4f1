"""Inside `checkpoint` too, imports point one way: the row in the docstring of the package."""

from __future__ import annotations

import re

import pytest

import isotone.checkpoint
from tests.test_layers import MODULES, dotted, imports

PACKAGE = "isotone.checkpoint"
ROW = next(line for line in isotone.checkpoint.__doc__.splitlines() if "<-" in line)
HEIGHTS = {
    name: height for height, cell in enumerate(ROW.split("<-")) for name in re.findall(r"\w+", cell)
}
OWN = {dotted(path): path for path in MODULES if dotted(path).startswith(f"{PACKAGE}.")}


def room(module):
    return module.split(".")[2]


def test_the_row_names_every_folder():
    assert {room(name) for name in OWN} == HEIGHTS.keys()


@pytest.mark.parametrize("name", OWN)
def test_imports_point_one_way(name):
    for module in imports(OWN[name]):
        if module.startswith(f"{PACKAGE}.") and room(module) != room(name):
            assert HEIGHTS[room(module)] < HEIGHTS[room(name)], f"{name} imports {module}"
