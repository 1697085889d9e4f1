"""Tells dense weights in a folder whose config says that they are clustered.

A model that is made from the config of a clustered one, and saved, has such a folder: transformers
writes the config with everything that it held, and the weights as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from isotone.checkpoint.compressed.manifest import MANIFEST_FILE
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.codec.arrays import SUFFIXES


def holds_dense_weights(directory: Path, files: Iterable[Path]) -> bool:
    """Return whether the weights in a folder are dense, whatever its config says.

    Parameters
    ----------
    directory : Path
        The folder.
    files : iterable of Path
        Its files with weights.

    Returns
    -------
    bool
        True if isotone wrote no manifest there, and no file has arrays of clustered tensors.

    Raises
    ------
    FormatError
        If a file is damaged.
    """
    if (directory / MANIFEST_FILE).is_file():
        return False
    opened = (SafetensorsFile.open(path) for path in files)
    return not any(tensor.name.endswith(SUFFIXES) for file in opened for tensor in file.tensors)
