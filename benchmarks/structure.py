"""Measure the structure of a checkout: files, functions, imports, circles, the path of a tensor.

Sizes are lines, those of code without docstrings, comments and empty lines; a function counts from
`def` to its end, without its docstring. An import climbs if it leads from a folder to another one
that is not below it in the table of layers, imports inside functions included. For a checkout
without that table in CONTRIBUTING.md (before the folders were ordered) the layers are those of
LAYERS_BEFORE, where `pipeline` stands above `models`, so that either of the two climbs when it
imports the other upward. A circle is a set of modules that import one another, inside functions
included.

The path of a tensor is traced: `isotone compress --bits 3.6 --workers 1` of a model with one bf16
matrix runs under a profiler, in a process of its own (measuring/call_trace.py). The script counts
the source files that it enters, the calls between folders, and those that climb. A call climbs if
the callee's folder stands above the caller's. Most of these are callbacks: functions that an upper
layer hands to a lower one, such as the tasks of an engine.
"""

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from measuring.tables import print_table

HERE = Path(__file__).resolve().parents[1]
TRACER = Path(__file__).with_name("measuring") / "call_trace.py"
ROW = re.compile(r"^\| (`[^|]*`) \| [^|]+ \|[^|]*\|$", re.MULTILINE)
LAYERS_BEFORE = {
    "errors": 0,
    "_native": 0,
    "core": 1,
    "codec": 2,
    "checkpoint": 3,
    "engine": 4,
    "models": 5,
    "pipeline": 6,
    "evaluate": 7,
    "report": 7,
    "heal": 8,
    "study": 8,
    "cli": 9,
    "isotone": 10,
}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
NO_CODE = {
    tokenize.ENCODING,
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
SHAPE = (256, 512)


@dataclass(frozen=True)
class Tree:
    """The sources of a checkout.

    root: the checkout. layers: the height of each folder. modules: the file of each dotted name.
    """

    root: Path
    layers: dict[str, int]
    modules: dict[str, Path]
    parsed: dict[str, ast.Module] = field(repr=False)

    @classmethod
    def read(cls, root: Path) -> "Tree":
        """Read and parse every Python file below src/isotone."""
        source = root / "src"
        modules = {}
        for path in sorted((source / "isotone").rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        parsed = {name: ast.parse(path.read_text("utf-8")) for name, path in modules.items()}
        return cls(root, layers_of(root), modules, parsed)

    def height(self, folder: str) -> int:
        """Return the height of a folder; `isotone` is the package's own module."""
        return self.layers[folder]


def layers_of(root: Path) -> dict[str, int]:
    """Return the height of each folder, from the table in CONTRIBUTING.md if it has one."""
    rows = ROW.findall((root / "CONTRIBUTING.md").read_text("utf-8"))
    heights = {
        name: height
        for height, folders in enumerate(reversed(rows))
        for name in re.findall("`([a-z_]+)`", folders)
    }
    return heights if "isotone" in heights else LAYERS_BEFORE


def folder_of(module: str) -> str:
    """Return the folder of a module: the first part behind `isotone`, or `isotone` itself."""
    return module.split(".")[1] if "." in module else module


def imports(tree: Tree, name: str) -> Iterator[str]:
    """Yield the modules of isotone that a module imports, inside functions too."""
    for node in ast.walk(tree.parsed[name]):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            known = tree.modules.keys() | {"isotone._native"}
            found = [each if each in known else str(node.module) for each in whole]
        else:
            continue
        yield from (each for each in found if each.split(".")[0] == "isotone")


def climbing_imports(tree: Tree) -> list[tuple[str, str]]:
    """Return the imports that lead to a folder that is not below the importing one."""
    found = []
    for name in tree.modules:
        own = folder_of(name)
        for module in sorted(set(imports(tree, name))):
            target = folder_of(module)
            if target != own and tree.height(target) >= tree.height(own):
                found.append((name, module))
    return found


def circles(tree: Tree) -> list[list[str]]:
    """Return the sets of modules that import one another; the package's own module is left out."""
    graph = {name: set(imports(tree, name)) & tree.modules.keys() for name in tree.modules}
    del graph["isotone"]
    reached = {name: _reachable(graph, name) for name in graph}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found, waiting = set(), [start]
    while waiting:
        for module in graph.get(waiting.pop(), ()):
            if module in graph and module not in found:
                found.add(module)
                waiting.append(module)
    return found


def function_lengths(tree: Tree) -> dict[str, int]:
    """Return the lines of every function and method, without its docstring."""
    found = {}
    for name, module in tree.parsed.items():
        for node in ast.walk(module):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines, first = node.end_lineno - node.lineno + 1, node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= first.end_lineno - first.lineno + 1
            found[f"{name}:{node.lineno} {node.name}"] = lines
    return found


def code_lines(path: Path, module: ast.Module) -> int:
    """Return the lines of a file that hold code: no docstring, no comment, not empty."""
    with path.open("rb") as file:
        tokens = [each for each in tokenize.tokenize(file.readline) if each.type not in NO_CODE]
    lines = {line for each in tokens for line in range(each.start[0], each.end[0] + 1)}
    for node in ast.walk(module):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def sizes(tree: Tree) -> list[tuple[str, object]]:
    """Return the rows about files, functions, imports and circles."""
    files = {name: len(path.read_text("utf-8").splitlines()) for name, path in tree.modules.items()}
    code = [code_lines(path, tree.parsed[name]) for name, path in tree.modules.items()]
    functions = function_lengths(tree)
    longest_file, longest = max(files, key=files.get), max(functions, key=functions.get)
    rings = circles(tree)
    return [
        ("Python files", len(files)),
        ("lines", sum(files.values())),
        ("median file, lines", statistics.median(files.values())),
        ("median file that is not empty, lines", statistics.median(filter(None, files.values()))),
        ("lines of code", sum(code)),
        ("median file that is not empty, lines of code", statistics.median(filter(None, code))),
        ("longest file", f"{files[longest_file]}: {longest_file}"),
        ("functions", len(functions)),
        ("median function, lines", statistics.median(functions.values())),
        ("longest function", f"{functions[longest]}: {longest}"),
        ("functions over 40 lines", sum(lines > 40 for lines in functions.values())),
        ("imports that climb", len(climbing_imports(tree))),
        ("import circles", len(rings)),
        ("modules in circles", sum(map(len, rings))),
    ]


def write_model(directory: Path) -> None:
    """Write a model directory with one bf16 matrix of normal weights, by hand."""
    weights = np.random.default_rng(0).normal(0.0, 0.02, SHAPE).astype(np.float32)
    data = (weights.view(np.uint32) >> 16).astype("<u2").tobytes()
    tensor = {"dtype": "BF16", "shape": SHAPE, "data_offsets": [0, len(data)]}
    header = json.dumps({"model.layers.0.mlp.up_proj.weight": tensor}).encode()
    header += b" " * (-len(header) % 8)
    content = len(header).to_bytes(8, "little") + header + data
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(content)
    (directory / "config.json").write_text('{"model_type": "llama"}\n', "utf-8")


def traced_calls(tree: Tree) -> list[list]:
    """Return the distinct calls of one compression, as measuring/call_trace.py prints them."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "model")
        command = [sys.executable, str(TRACER), f"{folder}/model", f"{folder}/out"]
        environment = {**os.environ, "PYTHONPATH": str(tree.root / "src")}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)


def way_of_a_tensor(tree: Tree, listed: bool) -> list[tuple[str, object]]:
    """Return the rows about the files that one tensor enters, and the calls that climb."""
    calls = traced_calls(tree)
    files = {callee[0] for _, callee in calls}
    between = [(a, b) for a, b in calls if a is not None and _folder(a[0]) != _folder(b[0])]
    climbs = [(a, b) for a, b in between if tree.height(_folder(b[0])) > tree.height(_folder(a[0]))]
    tasks = sum(_folder(a[0]) == "engine" for a, _ in climbs)
    progress = sum(_folder(b[0]) == "cli" for _, b in climbs)
    if listed:
        print(*sorted(files), sep="\n")
        print(*(f"{' '.join(a)} -> {' '.join(b)}" for a, b in climbs), sep="\n")
    return [
        ("files that one tensor enters", len(files)),
        ("calls between folders", len(between)),
        ("calls that climb", len(climbs)),
        ("of these, tasks that an engine runs", tasks),
        ("of these, progress that the command line shows", progress),
        ("of these, others", len(climbs) - tasks - progress),
    ]


def _folder(file: str) -> str:
    first = file.split("/")[0]
    return "isotone" if first == "__init__.py" else first.removesuffix(".py")


def main() -> None:
    """Print the figures of one checkout."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tree", type=Path, default=HERE, metavar="PATH", help="the checkout")
    parser.add_argument("--list", action="store_true", help="name files, calls and circles")
    given = parser.parse_args()
    tree = Tree.read(given.tree.resolve())
    if given.list:
        print(*(f"{name} imports {module}" for name, module in climbing_imports(tree)), sep="\n")
        print(*(f"circle: {', '.join(ring)}" for ring in circles(tree)), sep="\n")
    rows = [*sizes(tree), *way_of_a_tensor(tree, given.list)]
    print_table(str(tree.root), ("", "found"), rows)


if __name__ == "__main__":
    main()
