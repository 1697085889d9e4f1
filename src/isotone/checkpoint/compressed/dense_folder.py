"""Tells dense weights from clustered ones, whatever the files beside them say.

A model that is made from the config of a clustered one, and saved, has a config that says that its
weights are clustered. A dense model that is saved into the folder of a clustered one leaves the old
manifest there. What counts is what the files with the weights hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.codec.arrays import SUFFIXES


def hold_dense_weights(files: Iterable[Path]) -> bool:
    """Return whether files with weights hold no arrays of clustered tensors.

    Parameters
    ----------
    files : iterable of Path
        The files with the weights of a folder.

    Returns
    -------
    bool
        Whether all their tensors are dense.

    Raises
    ------
    FormatError
        If a file is damaged.
    """
    opened = (SafetensorsFile.open(path) for path in files)
    return not any(tensor.name.endswith(SUFFIXES) for file in opened for tensor in file.tensors)
