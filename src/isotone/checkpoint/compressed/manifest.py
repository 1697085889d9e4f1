"""The record of a compressed directory: what each tensor is, where it came from, how to check it.

The manifest is sealed (see sealed_text.py), and carries a hash of every other file. So no byte of
the directory can change unnoticed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from blake3 import blake3

from isotone.checkpoint.compressed.sealed_json import seal
from isotone.checkpoint.files.location import reaching
from isotone.checkpoint.files.tensor_info import DTYPE_BYTES
from isotone.errors import FormatError

MANIFEST_FILE = "isotone.json"
FORMAT_VERSION = 2
CHANGED_VERSION = 3
"""Of directories whose values are not those that clustering found."""
READ_VERSIONS = (1, FORMAT_VERSION, CHANGED_VERSION)
QUANT_METHOD = "isotone"

_HASH_BYTES = 16 << 20
_TYPES = {
    "str": str,
    "str | None": str | None,
    "int": int,
    "float": int | float,
    "float | None": int | float | None,
}

Content = TypeVar("Content")


@dataclass(frozen=True)
class ClusteredRecord:
    """One clustered tensor.

    file: the shard that holds its arrays. n_matrices: 1, or the height of the stack.
    k: centroids of each codebook, at most what was asked for. scale: none, row or both factors.
    stored_bytes: all of its arrays. entropy_bits: of its ranks, per weight.
    distortion: sum of squared errors of the restored weights; relative_distortion divides by the
        sum of squares about the mean (of each matrix). Both are None where values were changed
        after clustering, for only the source would tell. optimality_gap: see
        points.optimality_gap; of the clustering.
    mean, standard_deviation: of all weights of the source.
    source_hash, decoded_hash: of the dense bytes that went in, and that come back.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    n_matrices: int
    k: int
    scale: str
    n_protected: int
    stored_bytes: int
    entropy_bits: float
    distortion: float | None
    relative_distortion: float | None
    optimality_gap: float
    mean: float
    standard_deviation: float
    source_hash: str
    decoded_hash: str

    @property
    def n_weights(self) -> int:
        """Weights."""
        return math.prod(self.shape)

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense tensor."""
        return self.n_weights * DTYPE_BYTES[self.dtype]

    @property
    def restored_hash(self) -> str:
        """Of the dense bytes that come back."""
        return self.decoded_hash

    @property
    def bits_per_weight(self) -> float:
        """Measured: all bytes of its arrays."""
        return 8 * self.stored_bytes / self.n_weights


@dataclass(frozen=True)
class KeptRecord:
    """One tensor stored bit for bit, and why.

    tied_to: the tensor that it repeats, if any; such a tensor is not stored a second time, and
        `file` is empty.
    decoded_hash: of the bytes that come back where they were changed since; else None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    reason: str
    source_hash: str
    tied_to: str | None = None
    decoded_hash: str | None = None

    @property
    def restored_hash(self) -> str:
        """Of the dense bytes that come back: those that went in, unless they were changed."""
        return self.decoded_hash or self.source_hash

    @property
    def dense_bytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


Record = ClusteredRecord | KeptRecord


@dataclass(frozen=True)
class FileRecord:
    """Any other file of the directory, and every shard."""

    name: str
    n_bytes: int
    hash: str


@dataclass(frozen=True)
class Manifest:
    """The whole record.

    arguments: how the directory was made. source_bytes: of the weight files. skipped: tensors of
    the source that a Hugging Face model has no place for.
    """

    isotone_version: str
    arguments: dict[str, Any]
    source_bytes: int
    skipped: tuple[str, ...]
    clustered: tuple[ClusteredRecord, ...]
    kept: tuple[KeptRecord, ...]
    files: tuple[FileRecord, ...]

    format_version: int = FORMAT_VERSION

    def to_text(self) -> str:
        """The canonical text, digest included."""
        content = asdict(self)
        body = {"format_version": content.pop("format_version"), **content}
        if self.format_version == 1:  # which knew no factors in what isotone wrote
            for record in body["clustered"]:
                del record["scale"]
        if self.format_version < CHANGED_VERSION:
            for record in body["kept"]:
                del record["decoded_hash"]
        return seal(body)

    @property
    def stored(self) -> list[Record]:
        """The records of all tensors whose bytes are in the directory."""
        return [*self.clustered, *(record for record in self.kept if record.tied_to is None)]

    @property
    def by_shard(self) -> dict[str, list[Record]]:
        """The records of stored tensors, by the name of the file that holds them, in order."""
        groups: dict[str, list[Record]] = {}
        for record in self.stored:
            groups.setdefault(record.file, []).append(record)
        return dict(sorted(groups.items()))

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """A manifest of JSON; raises KeyError, TypeError or ValueError where it cannot be one."""
        version = body["format_version"]
        older = {"scale": "none"} if version == 1 else {}
        manifest = cls(
            isotone_version=body["isotone_version"],
            arguments=body["arguments"],
            source_bytes=body["source_bytes"],
            skipped=tuple(body["skipped"]),
            clustered=tuple(parse_record(ClusteredRecord, older | r) for r in body["clustered"]),
            kept=tuple(parse_record(KeptRecord, r) for r in body["kept"]),
            files=tuple(parse_record(FileRecord, r) for r in body["files"]),
            format_version=version,
        )
        check_types(manifest)
        check_unique([r.name for r in manifest.clustered] + [r.name for r in manifest.kept])
        check_file_names(record.name for record in manifest.files)
        check_file_names(manifest.by_shard)
        for record in manifest.clustered:
            unknown = record.distortion is None
            if unknown != (record.relative_distortion is None):
                raise ValueError(f"{record.name}: half of its distortion is null")
            if unknown and version < CHANGED_VERSION:
                raise ValueError(f"{record.name}: its distortion is null")
        return manifest


def check_file(path: Path, record: FileRecord) -> None:
    """Raise FormatError where a file is not the one that was recorded."""
    if hash_file(path) != record.hash:
        raise changed_file(path)


def changed_file(path: Path) -> FormatError:
    """What to raise for a file that does not fit its hash."""
    return FormatError(f"{path}: was changed after it was written")


def hash_file(path: Path) -> str:
    """The hash of a file's bytes, read in pieces; raises FormatError where it cannot be read."""
    hasher = blake3()
    try:
        with reaching(path), path.open("rb") as file:
            while piece := file.read(_HASH_BYTES):
                hasher.update(piece)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    return hasher.hexdigest()


def parse_record(kind: type[Content], content: dict[str, Any]) -> Content:
    """A record of JSON; raises KeyError, TypeError or ValueError where it cannot be one."""
    if "shape" in kind.__annotations__:
        content = {**content, "shape": tuple(content["shape"])}
        if content["dtype"] not in DTYPE_BYTES:
            raise ValueError(f"dtype {content['dtype']!r}")
        if not all(type(axis) is int and axis >= 0 for axis in content["shape"]):
            raise ValueError(f"shape {content['shape']}")
    record = kind(**content)
    check_types(record)
    return record


def check_types(record: Any) -> None:  # noqa: ANN401 (any dataclass)
    """Raise TypeError where a field of text or a number is something else."""
    for field in fields(record):
        value = getattr(record, field.name)
        if not isinstance(value, _TYPES.get(str(field.type), object)):
            raise TypeError(f"{field.name} is {value!r}")


def check_unique(names: Iterable[str]) -> None:
    """Raise ValueError for a name given twice."""
    given = list(names)
    if len(set(given)) != len(given):
        raise ValueError("a name is given twice")


def check_file_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name given twice, and for a file that is not in the directory.

    Names with a dot in front are refused as well: there isotone keeps its own.
    """
    given = list(names)
    check_unique(given)
    for name in given:
        parts = name.split("/")
        if not name or any(part.startswith(".") or not part for part in parts):
            raise ValueError(f"{name!r} is not the name of a file in the directory")
