"""Files that are opened when they are read: few descriptors, and never another file."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from isotone.checkpoint.files.local_file import Descriptors, PositionedFile
from isotone.errors import FormatError

DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def files(tmp_path):
    for number in range(100):
        (tmp_path / f"{number}").write_bytes(bytes([number]) * 64)
    return [PositionedFile(tmp_path / f"{number}") for number in range(100)]


def n_open_in(directory):
    """How many descriptors of this process are of files in a directory."""
    found = 0
    for descriptor in DESCRIPTORS.iterdir():
        with suppress(FileNotFoundError):  # another thread, of whatever library, has closed it
            found += descriptor.readlink().is_relative_to(directory)
    return found


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="needs /proc")
def test_few_of_many_files_are_open(files, tmp_path):
    before = n_open_in(tmp_path)
    assert 0 < before < len(files)
    for _ in range(2):
        for number, file in enumerate(files):
            assert file.read(2, 5).tolist() == [number, number]
    assert 0 < n_open_in(tmp_path) <= before
    del file
    files.clear()
    assert n_open_in(tmp_path) == 0


def test_threads_read_what_each_file_holds(files):
    wrong = []

    def read(start):
        for step in range(400):
            number = (start + 7 * step) % len(files)
            if set(files[number].read(64, 0).tolist()) != {number}:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(13 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_descriptor_in_use_is_not_closed(files):
    pool = Descriptors(1)
    with pool.using(files[0]) as first:
        for file in files[1:10]:
            with pool.using(file):
                pass
        assert os.pread(first, 1, 0) == bytes([0])
    for file in files:
        pool.close(file)


def test_a_file_that_was_replaced_meanwhile_is_refused(files, tmp_path):
    first = files[0]
    (tmp_path / "new").write_bytes(b"x" * 64)
    (tmp_path / "new").replace(first.path)
    with pytest.raises(FormatError, match="replaced"):
        first.read(1, 0)
    files[1].path.unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        files[1].read(1, 0)
