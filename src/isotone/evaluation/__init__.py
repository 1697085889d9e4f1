"""Measures what compression costs: perplexity, divergence from a reference, tasks, sample text."""

from importlib.util import find_spec

from isotone.errors import MissingExtraError

if find_spec("torch") is None or find_spec("transformers") is None:
    raise MissingExtraError("running a model", "models")
