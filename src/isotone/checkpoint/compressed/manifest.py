"""The manifest of a compressed directory: what each tensor is, where it came from, how to check it.

The manifest is sealed (see `sealed_json`) and holds the hash of every other file, so that no byte
of the directory can change unnoticed. Protected weights are outliers that are kept exactly.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from isotone.checkpoint.compressed.file_record import FileRecord
from isotone.checkpoint.compressed.record_parsing import (
    check_file_names,
    check_types,
    check_unique,
    parse_record,
)
from isotone.checkpoint.compressed.sealed_json import seal
from isotone.checkpoint.files.tensor_info import DTYPE_BYTES

FORMAT_VERSION = 2
OVERLAY_VERSION = 3
"""The format version of directories whose values are not those that clustering found."""
READ_VERSIONS = (1, FORMAT_VERSION, OVERLAY_VERSION)
QUANT_METHOD = "isotone"


@dataclass(frozen=True)
class ClusteredRecord:
    """What is recorded of one clustered tensor.

    Attributes
    ----------
    name, dtype, shape : str, str, tuple of int
        Of the dense tensor; the dtype is a tag of safetensors.
    file : str
        The shard that holds the tensor's arrays.
    n_matrices : int
        The number of matrices in a stack; 1 for a tensor that is not a stack.
    k : int
        The number of centroids in each codebook, at most as many as were asked for.
    scale : str
        The scales that the tensor has: `none`, `row` or `both`.
    n_protected : int
        The number of protected weights.
    stored_bytes : int
        The bytes of all of its arrays.
    entropy_bits : float
        The entropy of its ranks, in bits per weight.
    distortion : float, optional
        The sum of squared errors of the decoded weights. None, like `relative_distortion`, if the
        values were changed after clustering: only the source would tell.
    relative_distortion : float, optional
        The distortion divided by the sum of squares about the mean (of each matrix).
    optimality_gap : float
        A bound on how far the clustering's distortion is from the optimum (see
        `isotone.core.histogram`).
    mean, standard_deviation : float
        Of all weights of the source.
    source_hash, decoded_hash : str
        The hashes of the dense bytes that were clustered, and of those that decoding gives.
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
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def dense_bytes(self) -> int:
        """The bytes of the dense tensor."""
        return self.n_weights * DTYPE_BYTES[self.dtype]

    @property
    def dense_hash(self) -> str:
        """The hash of the dense bytes that decoding gives."""
        return self.decoded_hash

    @property
    def bits_per_weight(self) -> float:
        """The measured size: the bits of all of its arrays, divided by the number of weights."""
        return 8 * self.stored_bytes / self.n_weights


@dataclass(frozen=True)
class KeptRecord:
    """What is recorded of one tensor that is stored bit for bit.

    Attributes
    ----------
    name, dtype, shape : str, str, tuple of int
        Of the tensor; the dtype is a tag of safetensors.
    file : str
        The shard that holds the tensor; empty for a tied tensor.
    reason : str
        Why the tensor was not clustered.
    source_hash : str
        The hash of the tensor's bytes in the source.
    tied_to : str, optional
        The tensor that this one repeats. A tied tensor is not stored a second time.
    decoded_hash : str, optional
        The hash of the stored bytes if they were changed after compressing, otherwise None.
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
    def dense_hash(self) -> str:
        """The hash of the stored bytes: those of the source, unless they were changed."""
        return self.decoded_hash or self.source_hash

    @property
    def dense_bytes(self) -> int:
        """The bytes of the tensor."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


Record = ClusteredRecord | KeptRecord


@dataclass(frozen=True)
class Manifest:
    """The whole manifest of a complete directory.

    Attributes
    ----------
    isotone_version : str
        The isotone that wrote the directory.
    arguments : dict
        How the directory was made, as JSON.
    source_bytes : int
        The bytes of the source's weight files.
    skipped : tuple of str
        The tensors of the source that a Hugging Face model has no place for.
    clustered : tuple of ClusteredRecord
        The clustered tensors.
    kept : tuple of KeptRecord
        The other tensors.
    files : tuple of FileRecord
        Every other file of the directory.
    format_version : int
        One of `READ_VERSIONS`.
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
        """Return the canonical text, digest included."""
        content = asdict(self)
        body = {"format_version": content.pop("format_version"), **content}
        if self.format_version == 1:  # version 1 had no scales
            for record in body["clustered"]:
                del record["scale"]
        if self.format_version < OVERLAY_VERSION:
            for record in body["kept"]:
                del record["decoded_hash"]
        return seal(body)

    @property
    def stored(self) -> list[Record]:
        """The records of all tensors whose bytes are in the directory."""
        return [*self.clustered, *(record for record in self.kept if record.tied_to is None)]

    @property
    def copies(self) -> dict[str, list[KeptRecord]]:
        """The records of tensors that are not stored, by the name of the one that they repeat."""
        groups: dict[str, list[KeptRecord]] = {}
        for record in self.kept:
            if record.tied_to is not None:
                groups.setdefault(record.tied_to, []).append(record)
        return groups

    @property
    def by_shard(self) -> dict[str, list[Record]]:
        """The records of stored tensors, by the name of the file that holds them, in order."""
        groups: dict[str, list[Record]] = {}
        for record in self.stored:
            groups.setdefault(record.file, []).append(record)
        return dict(sorted(groups.items()))

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """Make a manifest of its JSON.

        Parameters
        ----------
        body : dict
            The table in isotone.json.

        Returns
        -------
        Manifest
            The same, checked.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the table is not a manifest.
        """
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
        manifest._check_copies()
        for record in manifest.clustered:
            unknown = record.distortion is None
            if unknown != (record.relative_distortion is None):
                raise ValueError(f"{record.name}: half of its distortion is null")
            if unknown and version < OVERLAY_VERSION:
                raise ValueError(f"{record.name}: its distortion is null")
        return manifest

    def _check_copies(self) -> None:
        """Raise ValueError if a tensor repeats one that is not stored, or that is not its equal."""
        originals = {r.name: (r.dtype, r.shape, r.source_hash) for r in self.stored}
        for copies in self.copies.values():
            for copy in copies:
                own = (copy.dtype, copy.shape, copy.source_hash)
                if originals.get(str(copy.tied_to)) != own:
                    raise ValueError(f"{copy.name}: is no copy of {copy.tied_to}")
