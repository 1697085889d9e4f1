"""The public surface: `isotone.__all__`, what it imports and when, and what the docs show of it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import isotone
from tests.builders.extras import CHARTS, TRAINING, missing

INIT = Path(isotone.__file__)


def imported_for_type_checkers():
    """The names that `if TYPE_CHECKING:` of isotone/__init__.py imports, and their modules."""
    (block,) = (
        node for node in ast.parse(INIT.read_text("utf-8")).body if isinstance(node, ast.If)
    )
    return {alias.asname: statement.module for statement in block.body for alias in statement.names}


def test_type_checkers_see_the_same_names():
    homes = imported_for_type_checkers()
    assert homes.pop("study") == "isotone"
    assert homes == isotone._HOMES
    assert {*isotone.__all__} == {*homes, "study", "__version__"}
    assert (INIT.parent / "py.typed").is_file()


@pytest.mark.skipif(missing(*TRAINING, *CHARTS), reason="some of the names need extras")
@pytest.mark.parametrize("name", sorted(isotone.__all__))
def test_every_public_name_is_there_and_described(name):
    value = getattr(isotone, name)
    assert name in dir(isotone)
    if name == "__version__":
        assert value == importlib.metadata.version("isotone")
        return
    assert value.__doc__
    assert isinstance(value, ModuleType) or value.__module__ == isotone._HOMES[name]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'isotone' has no attribute 'compact'"):
        _ = isotone.compact


@pytest.mark.skipif(missing(*TRAINING, *CHARTS, "ray"), reason="some of the modules need extras")
def test_no_module_hides_a_public_name():
    """Importing a subpackage sets an attribute of isotone: it must not be a function's name."""
    for found in pkgutil.walk_packages(isotone.__path__, "isotone."):
        importlib.import_module(found.name)
    for name, home in isotone._HOMES.items():
        value = getattr(isotone, name)
        assert not isinstance(value, ModuleType), name
        assert value is getattr(importlib.import_module(home), name)


def test_folders_have_names_of_their_own():
    folders = {module.name for module in pkgutil.iter_modules(isotone.__path__)}
    assert not folders & {*isotone._HOMES}


def test_importing_isotone_is_light():
    program = "import sys, isotone; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "isotone" in loaded
    assert not loaded & {"torch", "transformers", "rich", "typer", "numpy"}
