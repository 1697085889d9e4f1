"""What the disk alone would take: cold reading, and writing that has reached it.

Both through the page cache, as plain programs do it, or `behind`: every page is let go of as soon
as it has served. Where the host of a virtual machine takes unused memory back, filling fresh pages
can take several times as long as the disk does, and the second way is the faster one by far.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_BLOCK_BYTES = 16 << 20


def drop_cache(paths: Sequence[Path]) -> None:
    """Take files out of the page cache: all of it where we may, else these files."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3", "ascii")
        return
    except OSError:
        pass
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_seconds(paths: Sequence[Path], *, behind: bool = False) -> float:
    """How long it takes to read files once, cold, from first byte to last."""
    drop_cache(paths)
    block = bytearray(_BLOCK_BYTES)
    started = time.monotonic()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        position = 0
        while n_read := os.readv(descriptor, [block]):
            if behind:
                os.posix_fadvise(descriptor, position, n_read, os.POSIX_FADV_DONTNEED)
            position += n_read
        os.close(descriptor)
    return time.monotonic() - started


def write_seconds(path: Path, n_bytes: int, *, behind: bool = False) -> float:
    """How long it takes to write a new file and have it on the disk; removes it again."""
    os.sync()
    # Not zeros, which a disk may take for nothing.
    block = np.random.default_rng(0).bytes(_BLOCK_BYTES)
    started = time.monotonic()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for start in range(0, n_bytes, _BLOCK_BYTES):
            _write(descriptor, memoryview(block)[: n_bytes - start])
            if behind and start % (8 * _BLOCK_BYTES) == 0:
                os.fdatasync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.fsync(descriptor)
        return time.monotonic() - started
    finally:
        os.close(descriptor)
        path.unlink()


def _write(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]
