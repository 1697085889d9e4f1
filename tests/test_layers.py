"""Imports point down only, and what is heavy is imported only where it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "isotone"

# A package may import those of smaller numbers, and itself; models and pipeline, which read
# directories for one another, may import each other's modules where that makes no circle.
LAYERS = {
    "errors": 0,
    "_native": 0,
    "core": 1,
    "codec": 2,
    "checkpoint": 3,
    "engine": 4,
    "models": 5,
    "pipeline": 5,
    "evaluate": 7,
    "report": 7,
    "heal": 8,
    "study": 8,
    "cli": 9,
    "": 10,  # isotone/__init__.py
}

TORCH = {"torch", "transformers", "accelerate"}
THIRD_PARTY = {
    "errors": set(),
    "_native": {"numpy"},
    "core": {"numpy"},
    "codec": {"numpy"},
    "checkpoint": {"numpy", "blake3", "gguf", "huggingface_hub", "httpx", "upath"},
    "engine": {"ray"},
    "models": {"numpy", "gguf", "blake3"} | TORCH,
    "pipeline": {"numpy", "blake3"},
    "evaluate": {"numpy", "lm_eval", "datasets"} | TORCH,
    "heal": {"numpy", "blake3"} | TORCH,
    "study": {"numpy", "blake3"} | TORCH,
    "report": {"numpy", "altair", "jinja2", "vl_convert"},
    "cli": {"typer", "click", "rich"},
    "": {"numpy"},
}

MODULES = sorted(SOURCE.rglob("*.py")) + sorted(SOURCE.rglob("*.pyi"))


def dotted(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path): path for path in MODULES}


def imports(path):
    """(module, whether it is imported as the file is) for every import of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    at_once = {id(node) for node in _unconditional(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in at_once
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; the layers are easier to see whole"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in NAMES else node.module, id(node) in at_once


def _unconditional(node):
    """Statements that run as the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _unconditional(child)


def package(module):
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("path", MODULES, ids=[dotted(path) for path in MODULES])
def test_imports_point_down(path):
    own = package(dotted(path))
    for module, _ in imports(path):
        root = module.split(".")[0]
        if root == "isotone":
            target = package(module)
            side_by_side = {own, target} <= {"models", "pipeline"}
            down = target == own or side_by_side or LAYERS[target] < LAYERS[own]
            assert down, f"{own} imports {module}"
        elif root not in sys.stdlib_module_names:
            assert root in THIRD_PARTY[own], f"{own} imports {module}"


def test_every_package_has_its_place():
    assert {package(name) for name in NAMES} <= LAYERS.keys()


def test_modules_import_each_other_in_no_circle():
    graph = {
        name: {m for m, at_once in imports(path) if at_once and m in NAMES and m != name}
        for name, path in NAMES.items()
    }
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
