"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from isotone.core.clustering import method

SOURCE = Path(__file__).parents[1] / "src"


def dotted(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [
    dotted(path) for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text("utf-8")
]


def imported(name):
    """A module; the test is skipped where a package of one of isotone's extras is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "isotone").split(".")[0] == "isotone":
            raise
        pytest.skip(f"{error.name} is not installed")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(method, "_FACTORIES", dict(method._FACTORIES))
    run = doctest.testmod(imported(name))
    assert run.attempted > 0
    assert run.failed == 0, "the examples that failed are printed above"


def test_the_core_has_examples():
    assert sum(name.startswith(("isotone.core", "isotone.codec")) for name in MODULES) >= 8
