"""A worker for tests of engines, which nodes import by itself."""

from __future__ import annotations

import os
import time

import ray


class Slow:
    """Sleeps for as long as a task says, and tells on which node; dies of a negative time."""

    def __init__(self, *files):
        self.files = files

    def __call__(self, task, progress):
        number, seconds = task
        if seconds < 0:
            os._exit(1)
        progress.advance(1)
        time.sleep(seconds)
        progress.advance(1)
        return number, ray.get_runtime_context().get_node_id()
