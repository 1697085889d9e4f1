"""What `make docs` checks beyond what MkDocs does by itself.

Every public name of `isotone` has an entry in docs and a docstring that describes all of its
parameters, and so have the public methods of its classes. The links of the Markdown files outside
docs/ lead somewhere, and the source files that a page names exist. Whatever is wrong is logged as
a warning, which `mkdocs build --strict` turns into a failure.
"""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import griffe

LOG = logging.getLogger("mkdocs.hooks.docs_checks")
ROOT = Path(__file__).parents[1]
DIRECTIVE = re.compile(r"^::: isotone\.(\w+)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
SOURCE_FILE = re.compile(r"`(?:python )?([a-z_0-9]+/[a-z_0-9/]+\.py)[^`]*`")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_pre_build(config):
    """Check the public names and the links; MkDocs calls this before it builds."""
    check_reference(Path(config["docs_dir"]))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"):
        check_links(path)
    for path in sorted((Path(config["docs_dir"])).glob("*.md")):
        check_paths(path)


def check_reference(folder):
    """Check that exactly the public names have an entry, and that each is described."""
    package = griffe.load("isotone", search_paths=[ROOT / "src"], allow_inspection=False)
    public = public_names(ROOT / "src" / "isotone" / "__init__.py")
    shown = {name for page in folder.rglob("*.md") for name in DIRECTIVE.findall(page.read_text())}
    for name in sorted(public - shown):
        LOG.warning("isotone.%s is public, and no page in docs shows it", name)
    for name in sorted(shown - public):
        LOG.warning("docs shows isotone.%s, which is not a public name", name)
    for name in sorted(public & shown):
        check_described(f"isotone.{name}", package[name])


def public_names(path):
    """Return the names that isotone/__init__.py imports for type checkers: the public ones."""
    tree = ast.parse(path.read_text("utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def check_described(name, thing):
    """Check the docstring of one public name, and those of the methods of a class."""
    thing = thing.final_target if thing.is_alias else thing
    if thing.docstring is None:
        LOG.warning("%s has no docstring", name)
        return
    if thing.is_function:
        known = {each.name for each in thing.parameters} - {"self", "cls"}
        found = {
            each.name.lstrip("*")
            for section in thing.docstring.parse("numpy", warnings=False)
            if section.kind in (griffe.DocstringSectionKind.parameters,)
            for each in section.value
        }
        for missing in sorted(known - found):
            LOG.warning("%s: its docstring does not describe the parameter %s", name, missing)
    elif thing.is_class:
        for member in thing.members.values():
            if not member.is_alias and member.is_function and not member.name.startswith("_"):
                check_described(f"{name}.{member.name}", member)


def check_links(path):
    """Check that the relative links of a Markdown file lead to a file, and to a heading of it."""
    for link in LINK.findall(CODE_BLOCK.sub("", path.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target) if target else path
        if not file.exists():
            LOG.warning("%s links to %s, which does not exist", path.relative_to(ROOT), link)
        elif anchor and anchor not in {slug(text) for text in HEADING.findall(file.read_text())}:
            LOG.warning("%s links to %s, which has no such heading", path.relative_to(ROOT), link)


def check_paths(page):
    """Check that the source files that a page names in backticks exist."""
    for path in SOURCE_FILE.findall(page.read_text("utf-8")):
        if not any((folder / path).exists() for folder in (ROOT, ROOT / "src" / "isotone")):
            LOG.warning("%s names the file %s, which does not exist", page.name, path)


def slug(heading):
    """Return the anchor that GitHub and MkDocs give to a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
