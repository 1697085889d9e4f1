"""Measured points as charts: records in, files out, no model code."""

from importlib.util import find_spec

from isotone.errors import MissingExtraError

if any(find_spec(name) is None for name in ("altair", "jinja2", "vl_convert")):
    raise MissingExtraError("charts", "report")
