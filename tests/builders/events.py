"""Waiting for what a test needs, instead of for some time to pass."""

from __future__ import annotations

import time

LONGEST_WAIT_SECONDS = 300


def wait_until(condition, what):
    """Return once a condition holds; the deadline only ends a test that hangs."""
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to this: {what}"
        time.sleep(0.01)
