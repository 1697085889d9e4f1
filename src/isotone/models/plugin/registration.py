"""Tells transformers about isotone, whichever of the two is imported first.

Importing isotone must not import transformers, which takes seconds. If transformers' table of
quantizers is there already the plug-in registers at once; else a finder in front of the import
system waits for that one module and registers right after it has run.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

QUANTIZERS = "transformers.quantizers.auto"


def register_when_imported() -> None:
    """Register now, or as soon as transformers is imported; a second call changes nothing."""
    if hasattr(sys.modules.get(QUANTIZERS), "register_quantizer"):
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """A finder of the import system that adds a step to the loading of one module.

    It finds nothing itself: the other finders find the module.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != QUANTIZERS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._add_step(spec.loader)
        return spec

    def _add_step(self, loader: object) -> None:
        run = loader.exec_module  # type: ignore[attr-defined]

        def run_and_register(module: ModuleType) -> None:
            run(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register()

        loader.exec_module = run_and_register  # type: ignore[attr-defined]


def _register() -> None:
    """Let the plug-in add itself to transformers' tables.

    A transformers that the plug-in does not fit is still good for everything else, so this only
    warns; clustered directories then refuse to load, because their config says what is missing.
    """
    try:
        import_module("isotone.models.plugin.quantizer")
    except Exception as error:  # whatever another version of transformers may raise
        version = getattr(sys.modules.get("transformers"), "__version__", "of unknown version")
        warnings.warn(
            f"isotone cannot register with transformers {version}, so clustered models will not "
            f"load: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
