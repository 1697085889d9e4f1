"""Check that a compressed directory is undamaged, and that it was made from a given model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from isotone.checkpoint.compressed.config import dense_config
from isotone.checkpoint.compressed.decode import decode_checked
from isotone.checkpoint.compressed.file_record import FileRecord, check_file, hash_file
from isotone.checkpoint.compressed.manifest import ClusteredRecord, KeptRecord, Record
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.location import locate_found
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.weight_files import INDEX_SUFFIX, is_adapter
from isotone.core.float_format import FloatFormat
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Progress, Silent
from isotone.engine.tasks import Engine, independent
from isotone.engine.threads import Threads, worker_count
from isotone.errors import FormatError, InputError
from isotone.models.open_source import open_source
from isotone.pipeline.allocate.planned_matrix import PIECE_WEIGHTS

DISTORTION_TOLERANCE = 1e-9
"""The relative difference allowed between the recorded distortion, which is summed over distinct
values, and the distortion measured here, which is summed over weights."""


@dataclass(frozen=True)
class Verification:
    """The result of checking a directory.

    Attributes
    ----------
    failures : tuple of str
        One line for each check that failed.
    n_tensors : int
        The number of tensors that were decoded.
    n_files : int
        The number of files that were hashed.
    """

    failures: tuple[str, ...]
    n_tensors: int
    n_files: int

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures


def verify(
    directory: str | Path,
    *,
    against: str | Path | None = None,
    workers: int | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Decode every tensor of a directory and check every hash.

    The base of a codebook-only directory is checked as well. Damage is not raised as an exception:
    it is a failure in the result.

    Parameters
    ----------
    directory : str or Path
        A directory that isotone wrote, complete or codebook-only, or the URL of a complete one.
    against : str or Path, optional
        The dense model that the directory was made from. If it is given, the hash of each of its
        tensors is compared with the recorded one; the distortion of each clustered tensor is
        measured and compared with the recorded one, unless values were changed since; and config
        and companion files are compared.
    workers : int, optional
        The number of threads; by default the cores that this process may use.
    engine : Engine, optional
        Where the work runs, instead of on threads of this process.
    progress : Progress, optional
        Is told how many dense bytes are done.

    Returns
    -------
    Verification
        The failures. Attribute `ok` says whether there are none.

    Raises
    ------
    InputError
        If the directory is not isotone's, or the model to compare with cannot be opened.

    Examples
    --------
    >>> import isotone
    >>> isotone.verify("clustered", against="SmolLM2-135M").failures  # doctest: +SKIP
    ()
    """
    path = locate_found(directory)
    if not (path / MANIFEST_FILE).is_file():
        raise InputError(f"{path}: has no isotone.json; expected a directory that isotone wrote")
    engine = engine or LocalEngine(n_threads=worker_count(workers))
    source = None if against is None else open_source(against)
    try:
        opened = open_compressed(path.absolute())  # workers may be elsewhere
    except FormatError as error:
        return Verification((str(error),), 0, 0)
    progress = progress or Silent()
    stored, files = opened.manifest.stored, list(opened.files)
    progress.begin("verifying", sum(record.dense_bytes for record in stored))
    found: dict[str, list[str]] = {}  # by files and tensors
    with engine.start(_Verifier, (opened, source, engine.n_threads), progress) as team:
        for _, problems in team.results(independent(_portions(files, opened.manifest.by_shard))):
            found |= problems
    order = [*(str(file) for file, _ in files), *(record.name for record in stored)]
    failures = [problem for what in order for problem in found[what]]
    failures += _unrecorded(opened)
    if source is not None:
        failures += _compare_inventory(opened, source)
    return Verification(tuple(failures), len(stored), len(files))


@dataclass(frozen=True)
class _Portion:
    """The files and tensors that one worker checks as one task."""

    files: Sequence[tuple[Path, FileRecord]]
    records: Sequence[Record]


def _portions(
    files: Sequence[tuple[Path, FileRecord]], by_shard: Mapping[str, Sequence[Record]]
) -> list[_Portion]:
    """Return a portion for each shard and its tensors, and one for all small files together."""
    named: dict[str, list[tuple[Path, FileRecord]]] = {name: [] for name in by_shard}
    small: list[tuple[Path, FileRecord]] = []
    for path, record in files:
        named.get(record.name, small).append((path, record))
    return [_Portion(small, ()), *(_Portion(named[name], by_shard[name]) for name in by_shard)]


class _Verifier:
    """A worker that checks one portion after the other, on its threads."""

    def __init__(
        self, directory: CompressedDirectory, source: Source | None, n_threads: int
    ) -> None:
        self._check, self._n_threads = _Check(directory, source), n_threads

    def __call__(self, portion: _Portion, progress: Progress) -> dict[str, list[str]]:
        """Return what is wrong with each file and each tensor."""
        ahead = 2 * self._n_threads
        with Threads.start(self._n_threads) as threads:
            checked = threads.map(lambda file: _check_file(*file), portion.files, ahead)
            found = dict(zip((str(path) for path, _ in portion.files), checked, strict=True))
            compared = threads.map(self._check, portion.records, ahead)
            for record, problems in zip(portion.records, compared, strict=True):
                found[record.name] = problems
                progress.advance(record.dense_bytes)
        return found


def _check_file(path: Path, record: FileRecord) -> list[str]:
    try:
        check_file(path, record)
    except FormatError as error:
        return [str(error)]
    return []


@dataclass(frozen=True)
class _Check:
    """Decodes one tensor, and compares it with its source if there is one."""

    directory: CompressedDirectory
    source: Source | None

    def __call__(self, record: Record) -> list[str]:
        try:
            if self.source is None:
                for _ in decode_checked(self.directory, record):
                    pass
                return []
            copies = self.directory.manifest.copies.get(record.name, ())
            repeated = (_compare_copy(copy, self.source) for copy in copies)
            return [*self._compare(record, self.source), *chain.from_iterable(repeated)]
        except (FormatError, InputError) as error:
            return [str(error)]

    def _compare(self, record: Record, source: Source) -> Iterator[str]:
        tensor = TensorInfo(record.name, record.dtype, record.shape)
        if tensor not in source.tensors:
            yield f"{record.name}: the source has no such tensor of {record.dtype} {record.shape}"
            return
        hasher, distortion, start = blake3(), 0.0, 0
        for piece in decode_checked(self.directory, record):
            stop = start + len(piece) * tensor.n_weights // max(tensor.n_bytes, 1)
            dense = source.read(tensor, start, stop)
            hasher.update(dense.data)
            if isinstance(record, ClusteredRecord):
                distortion += _squared_error(dense, piece, FloatFormat(record.dtype))
            start = stop
        if hasher.hexdigest() != record.source_hash:
            yield f"{record.name}: the source is not the one that was compressed"
        elif isinstance(record, ClusteredRecord):
            yield from _compare_distortion(record, distortion)


def _compare_copy(record: KeptRecord, source: Source) -> Iterator[str]:
    """Compare a tensor that is stored under the name of another one with its source."""
    tensor = TensorInfo(record.name, record.dtype, record.shape)
    if tensor not in source.tensors:
        yield f"{record.name}: the source has no such tensor of {record.dtype} {record.shape}"
    elif _source_hash(source, tensor) != record.source_hash:
        yield f"{record.name}: in the source it does not repeat {record.tied_to} any more"


def _source_hash(source: Source, tensor: TensorInfo) -> str:
    hasher = blake3()
    for start in range(0, tensor.n_weights, PIECE_WEIGHTS):
        stop = min(start + PIECE_WEIGHTS, tensor.n_weights)
        hasher.update(source.read(tensor, start, stop).data)
    return hasher.hexdigest()


def _compare_distortion(record: ClusteredRecord, found: float) -> Iterator[str]:
    """Compare a distortion with the recorded one; none is recorded for a changed codebook."""
    recorded = record.distortion
    if recorded is not None and not np.isclose(found, recorded, rtol=DISTORTION_TOLERANCE, atol=0):
        yield f"{record.name}: distortion is {found:g}, recorded {recorded:g}"


def _squared_error(
    dense: NDArray[np.uint8], restored_bytes: NDArray[np.uint8], float_format: FloatFormat
) -> float:
    before = float_format.upcast(dense.view(float_format.bits_dtype)).astype(np.float64)
    after = float_format.upcast(restored_bytes.view(float_format.bits_dtype)).astype(np.float64)
    return float(np.square(before - after).sum())


def _compare_inventory(directory: CompressedDirectory, source: Source) -> Iterator[str]:
    manifest = directory.manifest
    recorded = {record.name for record in manifest.clustered}
    recorded |= {record.name for record in manifest.kept}
    for tensor in source.tensors:
        if tensor.name not in recorded:
            yield f"{tensor.name}: is in the source, and was left out"
    if dense_config(directory.config) != dense_config(source.config):
        yield "config.json: differs from the source's by more than its quantization_config"
    files = {record.name: record.hash for record in manifest.files}
    for companion in source.companions:
        content = companion.content
        found = blake3(content).hexdigest() if isinstance(content, bytes) else hash_file(content)
        if files.get(companion.name) != found:
            yield f"{companion.name}: differs from the source's, or was left out"


def _unrecorded(directory: CompressedDirectory) -> Iterator[str]:
    """Find weights that were put beside the recorded ones: transformers may load those instead."""
    recorded = {record.name for record in directory.manifest.files}
    for path in sorted(directory.path.iterdir()):
        is_weights = path.name.endswith((".safetensors", INDEX_SUFFIX)) or is_adapter(path.name)
        if is_weights and path.name not in recorded and not path.name.startswith("."):
            yield f"{path}: isotone did not write it, and transformers may load it; remove it"
