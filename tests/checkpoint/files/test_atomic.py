"""A file is written whole or not at all, and one process at a time holds a directory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isotone.checkpoint.files.atomic import temporary_name, write_atomically, writing_atomically
from isotone.checkpoint.files.lock import take_lock
from isotone.errors import InputError


@pytest.mark.parametrize("durable", [True, False])
def test_new_content_replaces_the_old(durable, tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        write_atomically(path, content, durable=durable)
        assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_after_an_exception_the_old_content_is_left_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError), writing_atomically(path) as file:
        file.writelines([b"half of the new", "text"])
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file"
    with writing_atomically(path, unique=True) as one, writing_atomically(path, unique=True) as two:
        one.write(b"one")
        two.write(b"two")
    assert path.read_bytes() == b"one", "the outer one is renamed last"


def test_a_temporary_name_is_hidden_and_unique_where_asked():
    assert temporary_name("a.json") == temporary_name("a.json") == ".a.json.tmp"
    assert temporary_name("a.json", unique=True) != temporary_name("a.json", unique=True)


def test_a_lock_keeps_others_out_until_its_process_ends(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import sys, pathlib; from isotone.checkpoint.files.lock import take_lock; "
        "file = open(sys.argv[1], 'w'); take_lock(file, pathlib.Path('there')); "
        "print('taken', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as other, path.open("w") as file:
        assert other.stdout.readline() == "taken\n"
        with pytest.raises(InputError, match="another isotone is at work there"):
            take_lock(file, tmp_path)
        other.kill()
        other.wait()
        take_lock(file, tmp_path)
