"""The documentation and the examples use public names of isotone only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import isotone
from isotone import study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
IMPORT = re.compile(r"^\s*(?:>>> )?(from isotone\S* import .*|import isotone\S*(?: as \w+)?)")
NAME = re.compile(r"(?<![\w./-])isotone\.([A-Za-z_]\w*)(?:\.([A-Za-z_]\w*))?")
FILES = {"json", "sources", "methods"}  # isotone.json is a file, the others are entry points
RUNS = re.compile(r"python\S* (?:\S+ )*-m isotone|-m isotone\.cli\.main")


def code(page):
    """The lines of code of a page: indented by four, or between fences."""
    fenced = False
    for line in page.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line


def imported(statement):
    """The names that an import of isotone brings, as dotted names."""
    (node,) = ast.parse(statement.split("#")[0].strip()).body
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def is_public(dotted):
    """Whether `isotone.x` or `isotone.study.x` is a public name."""
    first, *rest = dotted.split(".")[1:] or ["__version__"]
    if first == "study" and rest:
        return rest[0] in study.__all__
    return first in isotone.__all__


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_show_public_names_only(path):
    private = []
    for line in code(path):
        found = IMPORT.match(line)
        names = imported(found[1]) if found else []
        if not found and not RUNS.search(line):
            names = [match[0] for match in NAME.finditer(line) if match[1] not in FILES]
        private += [name for name in names if not is_public(name)]
    assert not private


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_import_public_names_only(path):
    private = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        names = [name for name in names if re.fullmatch(r"isotone(\.\w+)*", name)]
        private += [name for name in names if not is_public(name)]
    assert not private
