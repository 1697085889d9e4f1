"""The record of a compressed directory: what each tensor is, where it came from, how to check it.

The manifest carries a digest of itself over its canonical text, and is refused unless it is that
text byte for byte; it carries a hash of every other file. So no byte of the directory can change
unnoticed. All hashes are BLAKE3, in hexadecimal.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from blake3 import blake3

from isotone.checkpoint.source import DTYPE_BYTES
from isotone.errors import FormatError

MANIFEST_FILE = "isotone.json"
FORMAT_VERSION = 2
READ_VERSIONS = (1, 2)
QUANT_METHOD = "isotone"

_HASH_BYTES = 16 << 20
_TYPES = {"str": str, "str | None": str | None, "int": int, "float": int | float}

Content = TypeVar("Content")


@dataclass(frozen=True)
class ClusteredRecord:
    """One clustered tensor.

    file: the shard that holds its arrays. n_matrices: 1, or the height of the stack.
    k: centroids of each codebook, at most what was asked for. scale: none, row or both factors.
    stored_bytes: all of its arrays. entropy_bits: of its ranks, per weight.
    distortion: sum of squared errors of the restored weights; relative_distortion divides by the
        sum of squares about the mean (of each matrix). optimality_gap: see points.optimality_gap.
    mean, standard_deviation: of all its weights.
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
    distortion: float
    relative_distortion: float
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
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    reason: str
    source_hash: str
    tied_to: str | None = None

    @property
    def restored_hash(self) -> str:
        """Of the dense bytes that come back: those that went in."""
        return self.source_hash

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
        return _canonical({**body, "digest": blake3(_canonical(body).encode()).hexdigest()})

    @property
    def stored(self) -> list[Record]:
        """The records of all tensors whose bytes are in the directory."""
        return [*self.clustered, *(record for record in self.kept if record.tied_to is None)]

    @property
    def shards(self) -> list[str]:
        """The names of the files that hold tensors, in order."""
        return list(dict.fromkeys(sorted(record.file for record in self.stored)))

    @property
    def digest(self) -> str:
        """What identifies the directory: a healed or edited model names its base by this."""
        digest: str = json.loads(self.to_text())["digest"]
        return digest

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read and check the manifest of a directory; raises FormatError."""
        path = directory / MANIFEST_FILE
        try:
            text = path.read_text("utf-8")
            body = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise FormatError(f"{path}: cannot be read: {error}") from error
        version = body.get("format_version") if isinstance(body, dict) else None
        if version not in READ_VERSIONS:
            raise FormatError(
                f"{path}: has format version {version!r}; this isotone reads "
                f"{', '.join(map(str, READ_VERSIONS))}; install the isotone that wrote it"
            )
        older = {"scale": "none"} if version == 1 else {}
        try:
            manifest = cls(
                isotone_version=body["isotone_version"],
                arguments=body["arguments"],
                source_bytes=body["source_bytes"],
                skipped=tuple(body["skipped"]),
                clustered=tuple(_record(ClusteredRecord, older | r) for r in body["clustered"]),
                kept=tuple(_record(KeptRecord, r) for r in body["kept"]),
                files=tuple(_record(FileRecord, r) for r in body["files"]),
                format_version=version,
            )
            intact = manifest.to_text() == text
            _check_types(manifest)
            manifest._check_names()
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: is damaged: {error!r}") from error
        if not intact:
            raise FormatError(f"{path}: was changed after it was written; its digest does not fit")
        return manifest

    def _check_names(self) -> None:
        """Raise ValueError for a name given twice, and for a file that is not in the directory.

        Names with a dot in front are refused as well: there isotone keeps its own.
        """
        tensors = [r.name for r in self.clustered] + [r.name for r in self.kept]
        files = [record.name for record in self.files]
        if len(set(tensors)) != len(tensors) or len(set(files)) != len(files):
            raise ValueError("a name is given twice")
        for name in [*self.shards, *files]:
            parts = name.split("/")
            if not name or any(part.startswith(".") or not part for part in parts):
                raise ValueError(f"{name!r} is not the name of a file in the directory")


def hash_file(path: Path) -> str:
    """The hash of a file's bytes, read in pieces; raises FormatError where it cannot be read."""
    hasher = blake3()
    try:
        with path.open("rb") as file:
            while piece := file.read(_HASH_BYTES):
                hasher.update(piece)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    return hasher.hexdigest()


def _record(kind: type[Content], content: dict[str, Any]) -> Content:
    """A record of JSON; raises KeyError, TypeError or ValueError where it cannot be one."""
    if kind is not FileRecord:
        content = {**content, "shape": tuple(content["shape"])}
        if content["dtype"] not in DTYPE_BYTES:
            raise ValueError(f"dtype {content['dtype']!r}")
        if not all(type(axis) is int and axis >= 0 for axis in content["shape"]):
            raise ValueError(f"shape {content['shape']}")
    record = kind(**content)
    _check_types(record)
    return record


def _check_types(record: Any) -> None:  # noqa: ANN401 (any of the classes above)
    for field in fields(record):
        value = getattr(record, field.name)
        if not isinstance(value, _TYPES.get(str(field.type), object)):
            raise TypeError(f"{field.name} is {value!r}")


def _canonical(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
