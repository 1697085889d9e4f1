"""Run the isotone command as people run it, and measure it from outside."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ISOTONE = str(Path(sys.executable).with_name("isotone"))


@dataclass(frozen=True)
class Run:
    """A command that ended well.

    seconds: of the clock, from start to end of the process, its start-up included.
    core_seconds: that cores spent on it. peak_rss_bytes: the most memory it held.
    output: what it printed with --json.
    """

    seconds: float
    core_seconds: float
    peak_rss_bytes: int
    output: dict[str, Any]


def isotone(*arguments: object) -> Run:
    """Run `isotone ARGUMENTS --json`; raises RuntimeError where it fails.

    Linux counts the memory of the process that starts another one towards the other's peak, so
    call this from one that holds little.
    """
    command = [ISOTONE, *map(str, arguments), "--json"]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}: {printed!r}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak, json.loads(printed))
