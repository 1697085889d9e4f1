"""Modules of other packages that extend isotone when they are imported.

A package names such a module in its `pyproject.toml`:

    [project.entry-points."isotone.methods"]
    median = "median_codebooks.method"
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from isotone.errors import InputError

SOURCES = "isotone.sources"
"""Modules that register kinds of sources: see `isotone.register_source`."""

METHODS = "isotone.methods"
"""Modules that register methods of clustering: see `isotone.register_method`."""


@cache
def import_extensions(group: str) -> None:
    """Import the modules that installed packages name in a group; once for each group.

    Parameters
    ----------
    group : str
        `SOURCES` or `METHODS`.

    Raises
    ------
    InputError
        If a module cannot be imported.
    """
    for point in entry_points(group=group):
        try:
            point.load()
        except Exception as error:  # whatever a foreign module raises as it is imported
            kind = group.removeprefix("isotone.").removesuffix("s")
            raise InputError(
                f"{point.value}: the {kind} {point.name!r} of another package cannot be imported: "
                f"{error}; repair or uninstall that package"
            ) from error
