"""The record of a codebook-only directory: the base that it belongs to, and what it changes of it.

Such a directory holds the new values of some tensors (codebooks, factors, tensors that were not
clustered), and takes all else from its base, a directory of isotone's that it names by digest.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from isotone.checkpoint.compressed.manifest import (
    CHANGED_VERSION,
    MANIFEST_FILE,
    READ_VERSIONS,
    ClusteredRecord,
    FileRecord,
    KeptRecord,
    Manifest,
    check_file_names,
    check_types,
    check_unique,
    parse_record,
)
from isotone.checkpoint.compressed.sealed_json import read_sealed, seal

WEIGHTS_FILE = "model.safetensors"
"""The one file with arrays in a codebook-only directory."""

AnyRecord = TypeVar("AnyRecord", ClusteredRecord, KeptRecord)

_BASE = "base"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class BaseReference:
    """Which directory is meant, and where it was: a POSIX path from the one that names it."""

    digest: str
    path: str


@dataclass(frozen=True)
class ChangedRecord:
    """One tensor with new values.

    stored_bytes: of the arrays here. decoded_hash: of the dense bytes that come back.
    """

    name: str
    stored_bytes: int
    decoded_hash: str

    def over(self, record: AnyRecord) -> AnyRecord:
        """What the base records of the tensor, with what has changed."""
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
class CodebookManifest:
    """The whole record. arguments: how the values came about."""

    isotone_version: str
    base: BaseReference
    arguments: dict[str, Any]
    changed: tuple[ChangedRecord, ...]
    files: tuple[FileRecord, ...]

    def to_text(self) -> str:
        """The canonical text, digest included."""
        return seal({"format_version": CHANGED_VERSION, **asdict(self)})

    def over(self, base: Manifest) -> Manifest:
        """What the base records, with what has changed; `files` are those of this directory."""
        changes = {record.name: record for record in self.changed}

        def merged(record: AnyRecord) -> AnyRecord:
            change = changes.get(record.name)
            return record if change is None else change.over(record)

        return replace(
            base,
            isotone_version=self.isotone_version,
            arguments=base.arguments | self.arguments,
            clustered=tuple(merged(record) for record in base.clustered),
            kept=tuple(merged(record) for record in base.kept),
            files=self.files,
            format_version=CHANGED_VERSION,
        )

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """A record of JSON; raises KeyError, TypeError or ValueError where it cannot be one."""
        manifest = cls(
            isotone_version=body["isotone_version"],
            base=parse_record(BaseReference, body[_BASE]),
            arguments=body["arguments"],
            changed=tuple(parse_record(ChangedRecord, record) for record in body["changed"]),
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


def read_manifest(directory: Path) -> tuple[Manifest | CodebookManifest, str]:
    """What the isotone.json of a directory records, and its digest; raises FormatError."""
    return read_sealed(directory / MANIFEST_FILE, READ_VERSIONS, _parse)


def _parse(body: dict[str, Any]) -> Manifest | CodebookManifest:
    if _BASE in body and body["format_version"] >= CHANGED_VERSION:
        return CodebookManifest.parse(body)
    return Manifest.parse(body)
