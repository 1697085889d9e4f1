"""Fetches files of a model by its hub id, through huggingface_hub and its cache."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from isotone.errors import InputError


def fetch(hub_id: str, wanted: Iterable[str], unwanted: Iterable[str] = ()) -> Path:
    """Return the directory of a model in the hub's cache; what is missing there is fetched.

    Parameters
    ----------
    hub_id : str
        `org/name`, or `org/name@revision`.
    wanted, unwanted : iterable of str
        Patterns of the files to fetch, and of those to leave out of them. `*` matches slashes too.

    Returns
    -------
    Path
        The directory. It may hold other files, which were fetched before. Without a network it is
        what the cache holds.

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
            allow_patterns=list(wanted),
            ignore_patterns=list(unwanted),
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
