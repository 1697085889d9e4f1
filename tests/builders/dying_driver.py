"""An isotone command that is killed between two shards, in a process of its own.

    python -m tests.builders.dying_driver N ARGUMENTS...

runs `isotone ARGUMENTS` with shards of at most 1 MiB, and dies by SIGKILL when N shards are
finished and another one is written but not yet published. Its workers are left at their tasks.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from isotone.checkpoint.staging.local import LocalStaging
from isotone.cli import main
from isotone.plan.shards import plan_shards

SHARD_BYTES = 1 << 20


def die_after(n):
    """From now on, die in the place of finishing the shard after the n-th."""
    finish, done = LocalStaging.finish, []

    def finish_or_die(self, *arguments):
        if len(done) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        finish(self, *arguments)
        done.append(arguments[0])

    LocalStaging.finish = finish_or_die


def killed_after(n, *arguments):
    """Run a command that is killed when it has finished n shards; whether it was."""
    command = [sys.executable, "-m", "tests.builders.dying_driver", str(n), *map(str, arguments)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # orphans would hold pipes
    ended = subprocess.run(command, check=False, cwd=Path(__file__).parents[2], **quiet)
    return ended.returncode == -signal.SIGKILL


if __name__ == "__main__":
    planning = import_module("isotone.plan.job")
    planning.plan_shards = functools.partial(plan_shards, shard_bytes=SHARD_BYTES)
    die_after(int(sys.argv.pop(1)))
    main.main()
