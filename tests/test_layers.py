"""Imports point down only, and what is heavy is imported only where it is needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "isotone"
ROW = re.compile(r"^\| (`[^|]*`) \| [^|]+ \|([^|]*)\|$", re.MULTILINE)


def layers():
    """Of each folder its height, and the packages that it may import: the table of CONTRIBUTING."""
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    heights, packages = {}, {}
    for height, (folders, outside) in enumerate(reversed(rows)):
        for folder in re.findall("`([a-z_]+)`", folders):
            name = "" if folder == "isotone" else folder  # isotone/__init__.py
            heights[name] = height
            packages[name] = set(outside.replace(",", " ").split())
    return heights, packages


HEIGHTS, PACKAGES = layers()
MODULES = sorted(SOURCE.rglob("*.py")) + sorted(SOURCE.rglob("*.pyi"))


def dotted(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path): path for path in MODULES}


def imports(path):
    """The module of every import of a file, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; the layers are easier to see whole"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in NAMES else node.module


def folder(module):
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("path", MODULES, ids=[dotted(path) for path in MODULES])
def test_imports_point_down(path):
    own = folder(dotted(path))
    for module in imports(path):
        root = module.split(".")[0]
        if root == "isotone":
            target = folder(module)
            assert target == own or HEIGHTS[target] < HEIGHTS[own], f"{own} imports {module}"
        elif root not in sys.stdlib_module_names:
            assert root in PACKAGES[own], f"{own} imports {module}"


def test_every_folder_has_its_place():
    assert {folder(name) for name in NAMES} == HEIGHTS.keys()


def test_modules_import_each_other_in_no_circle():
    graph = {
        name: {module for module in imports(path) if module in NAMES and module != name}
        for name, path in NAMES.items()
    }
    del graph["isotone"]  # its names are imported when they are first used
    while leaves := {name for name, needs in graph.items() if not needs & graph.keys()}:
        for name in leaves:
            del graph[name]
    assert graph == {}, "these are left when modules that depend on no other are taken away"


@pytest.mark.parametrize("module", ["isotone", "isotone.cli.main", "isotone.pipeline.compress"])
def test_nothing_heavy_is_imported_before_it_is_needed(module):
    heavy = {"torch", "transformers", "gguf", "huggingface_hub", "lm_eval", "altair", "ray"}
    heavy |= {"fsspec", "upath"}
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert module in loaded
    assert not heavy & set(loaded)
