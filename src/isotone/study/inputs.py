"""What a study starts from: a plan, a model that may have to be clustered first, and a text."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
import torch

from isotone.checkpoint.compressed.manifest import Manifest
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.staging import staging
from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine, Needs
from isotone.errors import InputError
from isotone.evaluation.provenance import model_hash, text_hash
from isotone.evaluation.tasks import prepare_tasks
from isotone.models.language_model.checks import check_context, check_tokens
from isotone.models.language_model.files import ModelFiles, open_files
from isotone.models.prefix import AUTO, Prefix, find_prefix
from isotone.models.text import Tokens, cut_windows, encode, read_text
from isotone.pipeline.compress import compress
from isotone.study.edits import EDITS
from isotone.study.plan import EditChoice, Plan
from isotone.study.protocols import MatrixPlace
from isotone.study.record import Provenance

_CLUSTERINGS = "clusterings"


@dataclass(frozen=True)
class StudyInputs:
    """The plan, the model and the text of a study, opened and checked; no weights are read.

    Attributes
    ----------
    files : ModelFiles
        The model that was given, its directory open.
    plan : Plan
        The plan, without the K of its grids where the model was clustered already.
    windows : int64 array, `[n, context]`
        The token ids of the text.
    provenance : Provenance
        What all records of the study share.
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
        bos: str = AUTO,
    ) -> Self:
        """Open and check everything that a study starts from.

        Parameters
        ----------
        plan : Plan
            The plan.
        model : str or Path
            A model directory, dense or clustered, or a hub id.
        text : str or Path
            A UTF-8 file, or "builtin".
        engine : Engine
            Where the study will run.
        dtype, device : str
            What the model will run in and on.
        progress : Progress
            Told while the model is hashed.
        bos : str
            What every window begins with: `auto`, `yes` or `no`, as `isotone.evaluate` takes it.

        Returns
        -------
        StudyInputs
            The inputs.

        Raises
        ------
        InputError
            If the plan, the model or the text cannot work, or do not fit each other.
        FormatError
            If a clustered directory is damaged.
        MissingExtraError
            If the plan has tasks, and lm-eval is not installed.
        """
        _check_edits(plan)
        files = open_files(model)
        files = replace(files, directory=files.directory.absolute())
        if files.clustered is not None:
            plan = replace(plan, grids=tuple(replace(grid, k=None) for grid in plan.grids))
        prefix = find_prefix(files, bos)
        windows, digest = _windows(files, plan, text, prefix)
        provenance = Provenance(
            model=files.directory.resolve().name if Path(model).is_dir() else str(model),
            model_hash=_digest(files, progress),
            text=Path(text).name,
            text_hash=digest,
            context=plan.context,
            windows=len(windows),
            clustering={} if files.clustered is not None else plan.clustering,
            dtype=dtype,
            device=device,
            n_threads=_torch_threads(engine),
            isotone=version("isotone"),
            torch=torch.__version__,
            transformers=version("transformers"),
            numpy=np.__version__,
            bos=prefix.names,
        )
        return cls(files, plan, windows, provenance)

    def refuse_inside(self, results: Path) -> None:
        """Raise InputError if the results would lie in the model's own directory.

        Parameters
        ----------
        results : Path
            The directory of the results.
        """
        staging.refuse_inside(results, self.files.directory)

    def clusterings(
        self, results: Path, engine: Engine, progress: Progress
    ) -> dict[int, CompressedDirectory]:
        """Return the clustered directories, open, by ascending K.

        A dense model is clustered into the directory of the results where that was not done yet.
        Weights outside the decoder layers (embeddings, norms, head) are not edited, and stay dense.

        Parameters
        ----------
        results : Path
            The directory of the results.
        engine : Engine
            Where the clustering runs.
        progress : Progress
            Told about the clustering.

        Returns
        -------
        dict of int to CompressedDirectory
            The directories by K; of a model that was clustered already its own, by its largest K.
        """
        opened = self.files.opened
        if isinstance(opened, CompressedDirectory):
            records = opened.manifest.clustered
            return {max((record.k for record in records), default=0): opened}
        names = [tensor.name for tensor in opened.tensors]
        outside = [name for name in names if MatrixPlace.of(name) is None]
        settings = self.plan.clustering | {"exclude": [*self.plan.clustering["exclude"], *outside]}
        made = {}
        for k in sorted(set(self.plan.k)):
            out = results / _CLUSTERINGS / f"k{k}"
            if not out.exists():
                compress(
                    self.files.directory, out, k=k, **settings, engine=engine, progress=progress
                )
            made[k] = open_compressed(out)
        return made

    def needs(self, manifest: Manifest) -> Needs:
        """Return what a worker takes: a model with its ranks, and what Passes keeps of it.

        Parameters
        ----------
        manifest : Manifest
            The manifest of one clustering; they differ in K alone.

        Returns
        -------
        Needs
            The memory in bytes, and the GPUs.
        """
        n_weights = sum(math.prod(record.shape) for record in manifest.stored)
        config = self.files.config.get_text_config()
        kept = config.vocab_size + config.num_hidden_layers * config.hidden_size
        memory_bytes = 5 * n_weights + 4 * self.windows.size * kept
        on_gpu = torch.device(self.provenance.device).type != "cpu"
        return Needs(memory_bytes=memory_bytes, gpus=1.0 if on_gpu else 0.0)


def places_in(manifest: Manifest) -> Sequence[MatrixPlace]:
    """Return where the clustered matrices of a directory are.

    Parameters
    ----------
    manifest : Manifest
        The manifest of the directory.

    Returns
    -------
    sequence of MatrixPlace
        The places, without those outside of the layers.
    """
    places = [MatrixPlace.of(record.name) for record in manifest.clustered]
    return [place for place in places if place is not None]


def drop_clusterings(results: Path) -> None:
    """Remove the clusterings that a study made.

    Parameters
    ----------
    results : Path
        The directory of the study's results.
    """
    shutil.rmtree(results / _CLUSTERINGS, ignore_errors=True)


def _windows(files: ModelFiles, plan: Plan, text: str | Path, prefix: Prefix) -> tuple[Tokens, str]:
    """Return the windows of the text, checked against the model, and the text's hash."""
    check_context(files, plan.context, f"context {plan.context}")
    content = read_text(text)
    tokens = encode(files.tokenizer, content)
    windows = cut_windows(tokens, plan.context, plan.windows, str(text), prefix.tokens)
    check_tokens(files, windows)
    return windows, text_hash(content)


def _digest(files: ModelFiles, progress: Progress) -> str:
    opened = files.opened
    if isinstance(opened, CompressedDirectory):
        return opened.digest
    return model_hash(opened, progress)


def _torch_threads(engine: Engine) -> int:
    """Return the threads of torch in a worker; fewer than its cores where the user limits them."""
    limited = "OMP_NUM_THREADS" in os.environ
    return min(engine.n_threads, torch.get_num_threads()) if limited else engine.n_threads


def _check_edits(plan: Plan) -> None:
    """Raise InputError early for what a run would raise it for, and for unknown tasks."""
    for grid in plan.grids:
        for edit in grid.edits:
            _try(edit, f"grid {grid.name!r}: ")
        if grid.tasks:
            prepare_tasks(grid.tasks)


def _try(edit: EditChoice, where: str) -> None:
    kind = EDITS[edit.name]
    if kind.needs_other:  # its layer is checked when the plan is expanded
        return
    codebook, counts = np.linspace(-1.0, 1.0, 8), np.ones(8, np.int64)
    try:
        kind.with_parameters(**edit.parameters)(codebook, counts, np.random.default_rng(0))
    except (InputError, ValueError) as error:
        raise InputError(f"{where}edit {edit.name}: {error}") from error
