"""The manifest of a codebook-only directory: its base, and the tensors that have new values.

Such a directory, an overlay, holds the new values of some tensors (codebooks, scales, and tensors
that were not clustered). It takes everything else from its base, a directory that isotone wrote and
that the overlay names by its digest.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from isotone.checkpoint.compressed.file_record import FileRecord
from isotone.checkpoint.compressed.manifest import (
    OVERLAY_VERSION,
    READ_VERSIONS,
    ClusteredRecord,
    KeptRecord,
    Manifest,
)
from isotone.checkpoint.compressed.record_parsing import (
    check_file_names,
    check_types,
    check_unique,
    parse_record,
)
from isotone.checkpoint.compressed.sealed_json import read_sealed, seal
from isotone.checkpoint.source.companions import MANIFEST_FILE

WEIGHTS_FILE = "model.safetensors"
"""The one file with arrays in a codebook-only directory."""

AnyRecord = TypeVar("AnyRecord", ClusteredRecord, KeptRecord)

_BASE = "base"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class BaseReference:
    """The directory that is meant, and where it was.

    Attributes
    ----------
    digest : str
        The digest of the base's isotone.json, 64 hexadecimal digits.
    path : str
        A relative POSIX path from the codebook-only directory to its base.
    """

    digest: str
    path: str


@dataclass(frozen=True)
class OverlayRecord:
    """What is recorded of one tensor with new values.

    Attributes
    ----------
    name : str
        The tensor, as the base records it.
    stored_bytes : int
        The bytes of its new arrays.
    decoded_hash : str
        The hash of the dense bytes that decoding gives.
    """

    name: str
    stored_bytes: int
    decoded_hash: str

    def over(self, record: AnyRecord) -> AnyRecord:
        """Return what the base records of the tensor, with the new values taken into account.

        Parameters
        ----------
        record : ClusteredRecord or KeptRecord
            What the base records of the tensor.

        Returns
        -------
        ClusteredRecord or KeptRecord
            The same kind of record. Its distortion is not known any more.
        """
        if isinstance(record, KeptRecord):
            return replace(record, decoded_hash=self.decoded_hash)
        return replace(
            record,
            stored_bytes=record.stored_bytes + self.stored_bytes,
            distortion=None,
            relative_distortion=None,
            decoded_hash=self.decoded_hash,
        )


@dataclass(frozen=True)
class OverlayManifest:
    """The whole manifest of a codebook-only directory.

    Attributes
    ----------
    isotone_version : str
        The isotone that wrote the directory.
    base : BaseReference
        The directory that the new values belong to.
    arguments : dict
        How the values were made, as JSON.
    changed : tuple of OverlayRecord
        The tensors with new values; at least one.
    files : tuple of FileRecord
        Every other file of the directory.
    """

    isotone_version: str
    base: BaseReference
    arguments: dict[str, Any]
    changed: tuple[OverlayRecord, ...]
    files: tuple[FileRecord, ...]

    def to_text(self) -> str:
        """Return the canonical text, digest included."""
        return seal({"format_version": OVERLAY_VERSION, **asdict(self)})

    def over(self, base: Manifest) -> Manifest:
        """Return what the base records, with the new values taken into account.

        Parameters
        ----------
        base : Manifest
            What the base records.

        Returns
        -------
        Manifest
            The manifest of both as one; `files` are those of this directory.
        """
        changed = {record.name: record for record in self.changed}

        def merged(record: AnyRecord) -> AnyRecord:
            new = changed.get(record.name)
            return record if new is None else new.over(record)

        return replace(
            base,
            isotone_version=self.isotone_version,
            arguments=base.arguments | self.arguments,
            clustered=tuple(merged(record) for record in base.clustered),
            kept=tuple(merged(record) for record in base.kept),
            files=self.files,
            format_version=OVERLAY_VERSION,
        )

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """Make a manifest of its JSON.

        Parameters
        ----------
        body : dict
            The table in isotone.json.

        Returns
        -------
        OverlayManifest
            The same, checked.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the table is not a manifest of a codebook-only directory.
        """
        manifest = cls(
            isotone_version=body["isotone_version"],
            base=parse_record(BaseReference, body[_BASE]),
            arguments=body["arguments"],
            changed=tuple(parse_record(OverlayRecord, record) for record in body["changed"]),
            files=tuple(parse_record(FileRecord, record) for record in body["files"]),
        )
        check_types(manifest)
        check_unique(record.name for record in manifest.changed)
        check_file_names(record.name for record in manifest.files)
        path = manifest.base.path
        if not path or path.startswith("/") or "\0" in path:
            raise ValueError(f"{path!r} is not a path from the directory to its base")
        if not _DIGEST.fullmatch(manifest.base.digest):
            raise ValueError(f"{manifest.base.digest!r} is not a digest")
        if not manifest.changed:
            raise ValueError("nothing is changed")
        return manifest


def read_manifest(directory: Path) -> tuple[Manifest | OverlayManifest, str]:
    """Read the isotone.json of a directory.

    Parameters
    ----------
    directory : Path
        A directory that isotone wrote.

    Returns
    -------
    manifest : Manifest or OverlayManifest
        What it records, as a complete or as a codebook-only directory.
    digest : str
        Its digest.

    Raises
    ------
    FormatError
        If the file cannot be read, or is damaged.
    """
    return read_sealed(directory / MANIFEST_FILE, READ_VERSIONS, _parse)


def _parse(body: dict[str, Any]) -> Manifest | OverlayManifest:
    if _BASE in body and body["format_version"] >= OVERLAY_VERSION:
        return OverlayManifest.parse(body)
    return Manifest.parse(body)
