"""Subclasses that are made for the modules of a packed model, and that pickle.

Much of transformers looks classes up by name, so such a class has the name and the module of the
class that it is made from. A pickle names a class by those, and would find the other one; so an
object is pickled together with how its class was made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ORDINARY_CLASS = "_isotone_ordinary_class"
"""On the class that a module was given: the class that it had."""

_RECIPE = "_isotone_recipe"


@dataclass(frozen=True)
class Recipe:
    """How a class was made.

    Attributes
    ----------
    make : callable
        Makes the class; a function of a module.
    arguments : tuple
        What it was given: classes, recipes of classes that were made themselves, or strings.
    """

    make: Callable[..., type[Any]]
    arguments: tuple[Any, ...]

    def made(self) -> type[Any]:
        """Return the class."""
        return self.make(*(a.made() if isinstance(a, Recipe) else a for a in self.arguments))


def subclass(
    make: Callable[..., type[Any]], arguments: tuple[Any, ...], additions: dict[str, Any]
) -> type[Any]:
    """Make a subclass of the same name.

    Parameters
    ----------
    make : callable
        The function of a module that calls this one: it makes the same class from the same
        arguments.
    arguments : tuple
        Its arguments; the first one is the class that the subclass is made of.
    additions : dict of str to object
        Attributes of the subclass.

    Returns
    -------
    type
        The subclass; its `ORDINARY_CLASS` attribute is the class, unless the additions name one.
    """
    base = arguments[0]
    kept = {key: getattr(base, key) for key in ("__module__", "__qualname__", "__doc__")}
    own = {ORDINARY_CLASS: base, _RECIPE: Recipe(make, arguments), "__reduce_ex__": _reduce}
    return type(base.__name__, (base,), {**kept, **own, **additions})


def _reduce(self: Any, _protocol: int) -> tuple[Any, ...]:
    return _empty, (_recipe_of(type(self)),), self.__dict__


def _recipe_of(made: Any) -> Any:
    """Return the recipe of a class that was made, with recipes for classes; other values as is."""
    recipe = vars(made).get(_RECIPE) if isinstance(made, type) else None
    if recipe is None:
        return made
    return Recipe(recipe.make, tuple(_recipe_of(each) for each in recipe.arguments))


def _empty(recipe: Recipe) -> Any:
    made: Any = recipe.made()
    return made.__new__(made)
