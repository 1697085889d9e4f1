"""Where nothing can be written: one line, exit 2, nothing published, and it goes on later."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isotone.pipeline.compress import compress
from tests.builders.checkpoints import Bf16, tree, weights, write_model

LIMIT = 20_000


@pytest.fixture
def source(tmp_path):
    tensors = {f"{name}.weight": Bf16(weights(200, 200, seed=ord(name))) for name in "ab"}
    return write_model(tmp_path / "model", tensors, config={"a": 1})


# No file may grow beyond the limit: a full disk, as far as one file can tell.
LIMITED = f"""
import resource, signal
from isotone.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
main()
"""


def run(*arguments, program="from isotone.cli.main import main; main()"):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def one_line(ended, said):
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_no_room_for_a_file(command, source, tmp_path):
    if command == "decompress":
        compress(source, tmp_path / "small")
        source = tmp_path / "small"
    out = tmp_path / "out"
    one_line(run(command, source, out, program=LIMITED), "cannot be written: File too large")
    assert not out.exists()
    assert all(len(content) < LIMIT for content in tree(tmp_path / "out.partial").values())
    assert not list((tmp_path / "out.partial").glob(".*.safetensors.tmp"))
    assert run(command, source, out).returncode == 0
    assert out.exists()
    assert not (tmp_path / "out.partial").exists()


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 32 kB, where this machine lets a test mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a file system needs root; the test above does without")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_no_room_on_the_disk(source, tiny_disk):
    one_line(run("compress", source, tiny_disk / "out"), "cannot be written: No space left")
    assert not (tiny_disk / "out").exists()
    assert not list(tiny_disk.rglob("*.safetensors"))
    assert not list(tiny_disk.rglob(".*.safetensors.tmp"))


@pytest.mark.parametrize("command", ["compress", "decompress"])
@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("file/out", "cannot be written: Not a directory"),
        ("file/deep/out", "cannot be written: Not a directory"),
        ("file", "exists; choose another OUT"),
        ("taken", "cannot be written: File exists"),
        ("x" * 300, "cannot be written: File name too long"),
    ],
)
def test_places_that_cannot_be_written(command, out, said, source, tmp_path, isotone):
    if command == "decompress":
        compress(source, tmp_path / "small")
        source = tmp_path / "small"
    for name in ("file", "taken.partial"):
        (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    ended = isotone(command, source, tmp_path / out)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert said in ended.err
    assert tree(tmp_path) == before
