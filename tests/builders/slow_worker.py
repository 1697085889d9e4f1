"""Workers for tests of engines, which nodes import by themselves."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import ray

from isotone.pipeline.write.shards import ShardWork
from tests.builders.events import wait_until


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


@dataclass(frozen=True)
class Hang:
    """Where a worker hangs: on one node, after so many tasks, at the end of another one.

    It leaves `file` then, and never returns. Workers on other nodes begin only once `others_wait`
    exists: so there is a task left for the node that is to hang, however late it has started.
    """

    node_id: str
    n_done: int
    file: Path
    others_wait: Path

    def of(self, work):
        """A worker that does what another one does, and hangs."""
        is_here = ray.get_runtime_context().get_node_id() == self.node_id
        n_left = self.n_done

        def hanging(task, progress):
            nonlocal n_left
            if not is_here:
                wait_until(self.others_wait.exists, f"{self.others_wait} exists")
                return work(task, progress)
            result = work(task, progress)
            n_left -= 1
            if n_left < 0:
                self.file.touch()
                while True:  # until the node is killed
                    time.sleep(1)
            return result

        return hanging


def hanging_slow(hang):
    """Prepare a `Slow` that hangs."""
    return hang.of(Slow())


def hanging_shard_work(hang, *arguments):
    """Prepare a worker that compresses shards and hangs."""
    return hang.of(ShardWork(*arguments))
