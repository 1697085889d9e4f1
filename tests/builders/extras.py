"""Which of isotone's optional packages are missing, for the folders of tests that need them."""

from __future__ import annotations

from importlib.util import find_spec

MODELS = ("torch", "transformers")
TRAINING = (*MODELS, "accelerate")
CHARTS = ("altair", "jinja2", "vl_convert")


def missing(*packages):
    """Whether one of some packages cannot be imported."""
    return any(find_spec(package) is None for package in packages)
