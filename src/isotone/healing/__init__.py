"""Healing: the values of a clustered model are trained, its ranks stay as they are."""

from importlib.util import find_spec

from isotone.errors import MissingExtraError

if any(find_spec(name) is None for name in ("torch", "transformers", "accelerate")):
    raise MissingExtraError("healing a model", "models")
