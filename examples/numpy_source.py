"""Add a kind of source, a directory of .npy files: `python examples/numpy_source.py MODEL OUT`."""

import sys
from pathlib import Path

import numpy as np

import isotone


class NumpyDirectory:
    """A model whose tensors are float32 .npy files; the name of a file names its tensor."""

    config, companions, skipped, left_out = {}, (), (), {}

    def __init__(self, path: Path) -> None:
        self.files = {file.stem: file for file in sorted(path.glob("*.npy"))}
        arrays = {name: np.load(file, mmap_mode="r") for name, file in self.files.items()}
        self.tensors = [isotone.TensorInfo(name, "F32", a.shape) for name, a in arrays.items()]
        self.n_bytes = sum(file.stat().st_size for file in self.files.values())

    def read(self, tensor, start, stop):
        """Return the bytes of elements `start` to `stop` of a tensor."""
        array = np.load(self.files[tensor.name], mmap_mode="r").reshape(-1)
        return np.array(array[start:stop]).view(np.uint8)

    def forget(self, tensor, start, stop):
        """Do nothing: the page cache may keep what was read."""

    def identity(self):
        """Return what must be equal when an interrupted run continues."""
        return {name: file.stat().st_mtime_ns for name, file in self.files.items()}


@isotone.register_source("numpy", accepts=lambda _, path: any(path.glob("*.npy")))
def open_numpy(_: str, path: Path) -> NumpyDirectory:
    """Open a directory that holds .npy files."""
    return NumpyDirectory(path)


if __name__ == "__main__":
    print(isotone.compress(sys.argv[1], sys.argv[2], k=16))
