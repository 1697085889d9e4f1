"""Kills a job at each of its dealings with the file system, in a process of its own.

    python kill_points.py JOB MODEL OUT

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

from checkpoints import tree

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def run(job, model, out):
    if job == "decompress":
        import_module("isotone.pipeline.decompress").decompress(model, out, workers=1)
        return
    stage = import_module("isotone.pipeline.compress")
    plan = import_module("isotone.checkpoint.plan")
    stage.plan_shards = functools.partial(plan.plan_shards, shard_bytes=4_000)
    stage.compress(model, out, k=6, workers=1, overwrite=job == "overwrite")


def die_at(n, out):
    """From now on, count the events on paths of OUT, and die before the n-th."""
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        if event in EVENTS and any(str(a).startswith(str(out)) for a in arguments[:2]):
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
    model, out = Path(model), Path(out)
    whole = out.with_name("undisturbed")
    in_child(lambda: run(job, model, whole))
    expected = tree(whole)
    old = None
    if job == "overwrite":
        in_child(lambda: run("compress", model, out.with_name("old")))
        old = out.with_name("old")
        (old / "old.txt").write_text("of another time")
    wrong, n = [], 0
    while True:
        n += 1
        for path in out.parent.glob("*out*"):
            shutil.rmtree(path)
        if old is not None:
            shutil.copytree(old, out)

        def disturbed(n=n):
            die_at(n, out.parent / out.name)
            run(job, model, out)

        finished = in_child(disturbed)
        found = tree(out) if out.exists() else None
        if found is not None:
            found.pop(".lock", None)  # removed last, once everything is in its place
        if found not in ([expected] if finished else [None, expected, old and tree(old)]):
            wrong.append(f"after event {n}: half a result")
        if finished:
            break
        if found == expected and job != "overwrite":
            continue
        in_child(lambda: run(job, model, out))
        if tree(out) != expected:
            wrong.append(f"after event {n}: the second run gave something else")
        left = sorted(p.name for p in out.parent.iterdir() if "out" in p.name and p != out)
        if left:
            wrong.append(f"after event {n}: the second run left {left}")
    print(json.dumps({"wrong": wrong, "deaths": n - 1}))


if __name__ == "__main__":
    main(*sys.argv[1:])
