"""Every public name says what it is, in the sections of numpydoc.

A public function has a Parameters section with every parameter, a Returns (or Yields) section where
it takes parameters and gives something back, and a Raises section where it raises one of isotone's
errors itself. A public class has an Attributes section with the fields of a dataclass. Properties,
functions without parameters, and methods that a base class describes need a sentence or nothing.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "isotone"
# Of commands the docstring is the help text; the options describe themselves.
MODULES = sorted(
    path for path in SOURCE.rglob("*.py") if "cli" not in path.relative_to(SOURCE).parts
)
ERRORS = {"InputError", "FormatError", "MissingExtraError"}
HEADING = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}$", re.MULTILINE)


def sections(text):
    """The sections of a docstring by their headings."""
    parts = HEADING.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(section):
    """The names that a section describes: `name : type`, or several names before the colon."""
    names = re.findall(r"^([*\w, ]+?)(?: :.*)?$", section, re.MULTILINE)
    return {name.strip().lstrip("*") for line in names for name in line.split(",") if name.strip()}


def names(decorators):
    return {ast.unparse(each).split("(")[0].split(".")[-1] for each in decorators}


def is_public(node):
    return not node.name.startswith("_")


def parameters(function):
    own = function.args
    known = [*own.posonlyargs, *own.args, *own.kwonlyargs]
    known += [each for each in (own.vararg, own.kwarg) if each]
    return {each.arg for each in known if not each.arg.startswith("_")} - {"self", "cls"}


def raises(function):
    """isotone's errors that the function raises by itself."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func))
    return found & ERRORS


def function_flaws(function, may_lack):
    text = ast.get_docstring(function)
    if text is None:
        return [] if may_lack else [f"{function.name}: has no docstring"]
    flaws = summary_flaws(function.name, text)
    if names(function.decorator_list) & {"property", "cached_property", "setter"}:
        return flaws
    found, known = sections(text), parameters(function)
    described = entries(found.get("Parameters", ""))
    if known != described:
        wrong = ", ".join(sorted(known ^ described))
        flaws.append(f"{function.name}: Parameters does not fit the signature: {wrong}")
    gives = function.returns is not None and ast.unparse(function.returns) not in ("None", "Never")
    if known and gives and not found.keys() & {"Returns", "Yields"}:
        flaws.append(f"{function.name}: has no Returns section")
    for error in sorted(raises(function)):
        if error not in found.get("Raises", ""):
            flaws.append(f"{function.name}: raises {error}, and Raises does not say so")
    return flaws


def class_flaws(node):
    text = ast.get_docstring(node)
    if text is None:
        return [f"{node.name}: has no docstring"]
    flaws = summary_flaws(node.name, text)
    found = sections(text)
    if "dataclass" in names(node.decorator_list):
        fields = {
            each.target.id
            for each in node.body
            if isinstance(each, ast.AnnAssign) and not each.target.id.startswith("_")
        }
        missing = fields - entries(found.get("Attributes", ""))
        if missing:
            flaws.append(f"{node.name}: Attributes lacks {', '.join(sorted(missing))}")
    for each in node.body:
        if isinstance(each, ast.FunctionDef):
            if each.name == "__init__" and parameters(each):
                described = entries(found.get("Parameters", ""))
                described |= entries(sections(ast.get_docstring(each) or "").get("Parameters", ""))
                if missing := parameters(each) - described:
                    lacks = ", ".join(sorted(missing))
                    flaws.append(f"{node.name}: Parameters lacks {lacks}")
            elif is_public(each):
                flaws += [f"{node.name}.{flaw}" for flaw in function_flaws(each, bool(node.bases))]
    return flaws


def summary_flaws(name, text):
    summary = text.split("\n\n")[0]
    return [] if summary.rstrip().endswith(".") else [f"{name}: its summary is no sentence"]


@pytest.mark.parametrize("path", MODULES, ids=[str(m.relative_to(SOURCE)) for m in MODULES])
def test_public_names_are_described(path):
    tree, flaws = ast.parse(path.read_text("utf-8")), []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and is_public(node):
            flaws += function_flaws(node, may_lack=False)
        elif isinstance(node, ast.ClassDef) and is_public(node):
            flaws += class_flaws(node)
    assert not flaws, "\n".join(flaws)
