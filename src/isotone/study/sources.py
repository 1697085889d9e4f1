"""What a study begins with: a model, maybe to be clustered yet, and text."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
import torch

from isotone.checkpoint.compressed.manifest import Manifest
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.staging import staging
from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine, Needs
from isotone.errors import InputError
from isotone.evaluation.provenance import model_hash, text_hash
from isotone.evaluation.tasks import prepare_tasks
from isotone.models.language_model.checks import check_context, check_tokens
from isotone.models.language_model.files import ModelFiles, open_files
from isotone.models.text import Tokens, cut_windows, encode, read_text
from isotone.pipeline.compress import compress
from isotone.study.edits import EDITS
from isotone.study.plan import EditChoice, Plan
from isotone.study.protocols import Place
from isotone.study.record import Provenance

_CLUSTERINGS = "clusterings"


@dataclass(frozen=True)
class Sources:
    """Files that are opened and checked; no weights are read.

    plan: the one that was given, without the k of its grids where the model came clustered.
    windows: [n, context].
    """

    files: ModelFiles
    plan: Plan
    windows: Tokens
    provenance: Provenance

    @classmethod
    def open(
        cls,
        plan: Plan,
        model: str | Path,
        text: str | Path,
        engine: Engine,
        dtype: str,
        device: str,
        progress: Progress,
    ) -> Self:
        """Raises InputError, FormatError and MissingExtraError for whatever cannot work."""
        _check_edits(plan)
        files = open_files(model)
        files = replace(files, directory=files.directory.absolute())
        if files.clustered is not None:
            digest = files.clustered.digest
            plan = replace(plan, grids=tuple(replace(grid, k=None) for grid in plan.grids))
        else:
            assert files.dense is not None
            digest = model_hash(files.dense, progress)
        check_context(files, plan.context, f"context {plan.context}")
        content = read_text(text)
        tokens = encode(files.tokenizer, content)
        windows = cut_windows(tokens, plan.context, plan.windows, str(text))
        check_tokens(files, windows)
        provenance = Provenance(
            model=files.directory.resolve().name if Path(model).is_dir() else str(model),
            model_hash=digest,
            text=Path(text).name,
            text_hash=text_hash(content),
            context=plan.context,
            windows=len(windows),
            clustering={} if files.clustered else plan.clustering,
            dtype=dtype,
            device=device,
            n_threads=_torch_threads(engine),
            isotone=version("isotone"),
            torch=torch.__version__,
            transformers=version("transformers"),
            numpy=np.__version__,
        )
        return cls(files, plan, windows, provenance)

    def refuse_inside(self, results: Path) -> None:
        """Raise InputError for results in the model's own directory."""
        staging.refuse_inside(results, self.files.directory)

    def clusterings(self, results: Path, engine: Engine, progress: Progress) -> dict[int, Path]:
        """Clustered directories by k, ascending; made below `results` where they are not yet.

        What is in no layer, such as embeddings, is not edited, and stays dense in those.
        """
        if self.files.clustered is not None:
            records = self.files.clustered.manifest.clustered
            return {max((record.k for record in records), default=0): self.files.directory}
        assert self.files.dense is not None
        outside = [
            tensor.name for tensor in self.files.dense.tensors if Place.of(tensor.name) is None
        ]
        settings = self.plan.clustering | {"exclude": [*self.plan.clustering["exclude"], *outside]}
        made = {}
        for k in sorted(set(self.plan.k)):
            made[k] = results / _CLUSTERINGS / f"k{k}"
            if not made[k].exists():
                compress(
                    self.files.directory,
                    made[k],
                    k=k,
                    **settings,
                    engine=engine,
                    progress=progress,
                )
        return made

    def manifest(self, clusterings: Mapping[int, Path]) -> Manifest:
        """The manifest of the first clustering: names and shapes are the same for each k."""
        if self.files.clustered is not None:
            return self.files.clustered.manifest
        return CompressedDirectory.open(next(iter(clusterings.values()))).manifest

    def needs(self, manifest: Manifest) -> Needs:
        """What a worker takes: a model with its ranks, and what study.passes.Passes keeps of it."""
        n_weights = sum(math.prod(record.shape) for record in manifest.stored)
        config = self.files.config.get_text_config()
        kept = config.vocab_size + config.num_hidden_layers * config.hidden_size
        memory_bytes = 5 * n_weights + 4 * self.windows.size * kept
        on_gpu = torch.device(self.provenance.device).type != "cpu"
        return Needs(memory_bytes=memory_bytes, gpus=1.0 if on_gpu else 0.0)


def places_in(manifest: Manifest) -> list[Place]:
    """Where the clustered matrices of a manifest are."""
    places = [Place.of(record.name) for record in manifest.clustered]
    return [place for place in places if place is not None]


def _torch_threads(engine: Engine) -> int:
    """Those of a worker, or fewer where the user limits them."""
    limited = "OMP_NUM_THREADS" in os.environ
    return min(engine.n_threads, torch.get_num_threads()) if limited else engine.n_threads


def drop_clusterings(results: Path) -> None:
    """Remove those that were made below `results`."""
    shutil.rmtree(results / _CLUSTERINGS, ignore_errors=True)


def _check_edits(plan: Plan) -> None:
    """Raise InputError early for what a run would raise it for, and for unknown tasks."""
    for grid in plan.grids:
        for edit in grid.edits:
            _try(edit, f"grid {grid.name!r}: ")
        if grid.tasks:
            prepare_tasks(grid.tasks)


def _try(edit: EditChoice, where: str) -> None:
    kind = EDITS[edit.name]
    if kind.needs_other:  # see protocols.expand
        return
    codebook, counts = np.linspace(-1.0, 1.0, 8), np.ones(8, np.int64)
    try:
        kind.with_parameters(**edit.parameters)(codebook, counts, np.random.default_rng(0))
    except (InputError, ValueError) as error:
        raise InputError(f"{where}edit {edit.name}: {error}") from error
