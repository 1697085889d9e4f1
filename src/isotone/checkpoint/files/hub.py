"""Fetches a model by its hub id, through huggingface_hub and its cache."""

from __future__ import annotations

from pathlib import Path

from isotone.errors import InputError

_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py", "LICENSE*", "README*")
_UNWANTED = ("*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "original/*")


def download(hub_id: str) -> Path:
    """Return the directory of a model in the hub's cache; what is missing there is fetched.

    Parameters
    ----------
    hub_id : str
        `org/name`, or `org/name@revision`.

    Returns
    -------
    Path
        The directory with the model's safetensors shards and small files; weights in other formats
        are not fetched.

    Raises
    ------
    InputError
        If the hub has no such model, or cannot be reached; the message quotes the hub's reason.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = hub_id.partition("@")
    try:
        directory = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=list(_WANTED),
            ignore_patterns=list(_UNWANTED),
        )
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OSError,
    ) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{hub_id}: no such path here, and the hub says: {reason}") from error
    return Path(directory)
