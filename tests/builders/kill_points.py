"""Kills a job at each of its dealings with the file system, in a process of its own.

    python -m tests.builders.kill_points JOB MODEL OUT

forks a child for each audited event (open, rename, remove, mkdir) on a path of OUT; the child dies
by SIGKILL just before its n-th one. After each death, what lies at OUT must be nothing or a whole
result; then the job runs again undisturbed and the result is compared with that of a job that was
never disturbed. Prints one line of JSON: what went wrong, and how many deaths there were.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
from importlib import import_module
from pathlib import Path

from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.plan.shards import plan_shards
from tests.builders.checkpoints import tree

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


planning = import_module("isotone.plan.job")


def run(job, model, out):
    shard_bytes = 4_000 if job == "compress" else 1 << 20  # several shards, or one
    planning.plan_shards = functools.partial(plan_shards, shard_bytes=shard_bytes)
    if job == "decompress":
        decompress(model, out, workers=1)
    else:
        compress(model, out, k=6, workers=1, overwrite=job == "overwrite")


def die_at(n, out):
    """From now on, count the events on paths of OUT, and die before the n-th."""
    seen, places = 0, (str(out), str(out.with_name("." + out.name)))

    def hook(event, arguments):
        nonlocal seen
        if event not in EVENTS:
            return
        within = arguments[-1] not in (None, -1) and event in ("os.remove", "os.rmdir")  # of a tree
        if within or any(str(a).startswith(places) for a in arguments[:2]):
            seen += 1
            if seen == n:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_child(task):
    """Whether a forked child ended by itself."""
    pid = os.fork()
    if pid == 0:
        task()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the child failed")
    return os.WIFEXITED(status)


def main(job, model, out):
    os.fsync = lambda _: None  # a killed process loses nothing that it wrote; only a machine does
    model, out = Path(model), Path(out)
    whole, old = out.with_name("undisturbed"), out.with_name("old")
    in_child(lambda: run(job, model, whole))
    if job == "overwrite":
        in_child(lambda: run("compress", model, old))
        (old / "old.txt").write_text("of another time")
    wrong, n, finished = [], 0, False
    while not finished:
        n += 1
        for path in out.parent.glob("*out*"):
            shutil.rmtree(path)
        if old.exists():
            shutil.copytree(old, out)
        finished = in_child(lambda n=n: (die_at(n, out), run(job, model, out)))
        wrong += [f"event {n}: {problem}" for problem in problems(job, model, out, finished)]
    print(json.dumps({"wrong": wrong, "deaths": n - 1}))


def problems(job, model, out, finished):
    """What is wrong after a death, or after the end."""
    expected, old = tree(out.with_name("undisturbed")), tree(out.with_name("old"))
    found = tree(out)
    found.pop(".lock", None)  # removed last, once everything is in its place
    if found not in ([expected] if finished else [{}, expected, old]):
        yield "half a result"
    if found != expected or job == "overwrite":
        in_child(lambda: run(job, model, out))
        if tree(out) != expected:
            yield "the second run gave something else"
        left = sorted(p.name for p in out.parent.iterdir() if "out" in p.name and p != out)
        if left:
            yield f"the second run left {left}"


if __name__ == "__main__":
    main(*sys.argv[1:])
