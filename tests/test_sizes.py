"""Files and functions fit in the head: 300 lines a file, 40 a function, its docstring aside."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_FILE_LINES, MOST_FUNCTION_LINES = 300, 40
FOLDERS = ("src", "native", "tests", "benchmarks", "examples")
SUFFIXES = {".py", ".pyi", ".cpp", ".hpp"}
FILES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES
)
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def function_lines(node):
    """Lines of a function, from `def` to its end, without its docstring."""
    lines = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines -= first.end_lineno - first.lineno + 1
    return lines


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_file_is_too_long(path):
    assert len(path.read_text("utf-8").splitlines()) <= MOST_FILE_LINES


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_no_function_is_too_long(path):
    long = {
        node.name: function_lines(node)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and function_lines(node) > MOST_FUNCTION_LINES
    }
    assert not long


def test_a_folder_holds_no_more_than_a_dozen_modules():
    folders = {path.parent for path in SOURCES}
    counts = {folder.name: len(list(folder.glob("[a-z]*.py"))) for folder in folders}
    assert {name: count for name, count in counts.items() if count > 13} == {}
