"""Measured points as charts: records in, files out, no model code."""

from importlib.util import find_spec

from isotone.errors import MissingExtraError

if find_spec("altair") is None or find_spec("vl_convert") is None:
    raise MissingExtraError("charts", "report")
