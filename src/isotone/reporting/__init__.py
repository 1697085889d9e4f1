"""Draws what was measured: records in, charts and pages out; no model is opened."""

from importlib.util import find_spec

from isotone.errors import MissingExtraError

if any(find_spec(name) is None for name in ("altair", "jinja2", "vl_convert")):
    raise MissingExtraError("charts", "report")
