"""A worker for tests of engines, which nodes import by itself."""

from __future__ import annotations

import os
import time

import ray


class Noting:
    """Notes in a directory that it begins a task, and on which node; then waits for a file there.

    A task is a number; it is done once the directory holds `go`, or a file of the task's number.
    """

    def __init__(self, directory):
        self.directory, self.node = directory, ray.get_runtime_context().get_node_id()

    def __call__(self, number, progress):
        progress.advance(1)
        (self.directory / f"began-{number}-{self.node}").write_text(str(os.getpid()))
        while not any((self.directory / name).exists() for name in ("go", str(number))):
            time.sleep(0.01)
        progress.advance(1)
        return number, self.node


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
