"""Kinds of sources, registered by name: what a user may give as MODEL.

isotone registers `directory`, `safetensors`, `gguf` and `hub` (see `isotone.models.open_source`).
Another package adds a kind with `register_source`, either after importing isotone or, so that the
command line finds it too, in a module that it names under the entry-point group `isotone.sources`:

    [project.entry-points."isotone.sources"]
    zipped = "zipped_models.source"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from isotone.checkpoint.source.source import Source
from isotone.entry_points import SOURCES, import_extensions

Accepts: TypeAlias = Callable[[str, Path], bool]
Open: TypeAlias = Callable[[str, Path], Source]


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    Attributes
    ----------
    name : str
        Its name.
    accepts : callable
        Given the user's text and the path that it leads to: whether this kind opens it.
    open : callable
        Given the same two: opens it.
    fallback : bool
        Whether it is asked only if no other kind accepts.
    """

    name: str
    accepts: Accepts
    open: Open
    fallback: bool = False


_kinds: dict[str, SourceKind] = {}


def register_source(
    name: str, *, accepts: Accepts, fallback: bool = False
) -> Callable[[Open], Open]:
    """Register the function that opens a kind of source, as a decorator.

    The kind that was registered last is asked first, so that a package can take over what isotone
    would open otherwise.

    Parameters
    ----------
    name : str
        The name of the kind. A kind of the same name is replaced.
    accepts : callable
        `accepts(model, path)` returns whether this kind opens what the user gave: `model` is the
        user's text, `path` is where it leads (a `pathlib.Path`, or one of universal_pathlib for a
        URL). It must be quick, and must not raise.
    fallback : bool
        Whether the kind is asked only if no other accepts. isotone's own kinds are such, because
        they are registered when a model is first opened, after those of the caller.

    Returns
    -------
    callable
        The decorator of `open(model, path)`, which returns a `Source`. A source must pickle, so
        that worker processes can read it.

    Examples
    --------
    >>> @register_source("zipped", accepts=lambda model, path: path.suffix == ".zip")
    ... def open_zipped(model, path): ...
    >>> find_kind("model.zip", Path("model.zip")).name
    'zipped'
    >>> forget_source("zipped")
    """

    def register(open_: Open) -> Open:
        _kinds.pop(name, None)
        _kinds[name] = SourceKind(name, accepts, open_, fallback)
        return open_

    return register


def forget_source(name: str) -> None:
    """Undo the registration of a kind.

    Parameters
    ----------
    name : str
        Its name; nothing happens if there is no such kind.
    """
    _kinds.pop(name, None)


def find_kind(model: str, path: Path) -> SourceKind | None:
    """Return the kind that opens what a user gave.

    Parameters
    ----------
    model : str
        The user's text.
    path : Path
        Where it leads.

    Returns
    -------
    SourceKind or None
        The kind that was registered last of those that accept it; None if there is none.

    Raises
    ------
    InputError
        If a package's module under `isotone.sources` cannot be imported.
    """
    import_extensions(SOURCES)
    kinds = list(reversed(_kinds.values()))
    kinds.sort(key=lambda kind: kind.fallback)
    return next((kind for kind in kinds if kind.accepts(model, path)), None)
