"""Heal a clustered model: one call, one directory, one record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from isotone.checkpoint.overlay.write import write_complete, write_overlay
from isotone.checkpoint.staging.open import open_staging
from isotone.checkpoint.staging.staging import Staging, writing
from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError
from isotone.healing.checkpointing import checkpoint_layers
from isotone.healing.crossings import CrossingCount
from isotone.healing.processes import agreed
from isotone.healing.settings import Settings
from isotone.healing.sources import SELF, Sources
from isotone.healing.state import Look
from isotone.healing.text import HealingText
from isotone.healing.trainable import Trainable, check_parts, open_for_training
from isotone.healing.training import DivergedError, Listener, Training
from isotone.models.language_model.load import DTYPES, load_model
from isotone.pipeline.summary import tree_bytes

_STATE = ".training.pt"


@dataclass(frozen=True)
class Healing:
    """What healing came to, on the held-out text.

    improved: whether the held-out loss fell; where it did not, nothing was written. The `before`
    figures are of the model as it was, the `after` ones of the best values, which were written.
    loss: the divergence from the teacher, or the cross-entropy without one, in nats a token.
    teacher_perplexity, gap_closed: of the teacher, and the share of what clustering had cost that
    came back; None without a teacher, the share also where it is no better than the model was.
    n_trained: numbers. steps: made; best_step: the best of them.
    crossings: see crossings.CrossingCount. seconds: everything; training_seconds: the steps.
    """

    improved: bool
    perplexity_before: float
    perplexity_after: float
    teacher_perplexity: float | None
    gap_closed: float | None
    loss_before: float
    loss_after: float
    n_trained: int
    steps: int
    best_step: int
    crossings: CrossingCount
    looks: tuple[Look, ...]
    output_bytes: int
    training_seconds: float
    seconds: float


@dataclass(frozen=True)
class _Options:
    """How to go about it, beside settings.Settings; see `heal`."""

    train: tuple[str, ...]
    order: str
    dtype: str
    gradient_checkpointing: bool
    full: bool


def heal(
    directory: str | Path,
    out: str | Path,
    *,
    text: str | Path = SELF,
    teacher: str | Path | None = None,
    held_out: str | Path | None = None,
    train: Sequence[str] = ("codebook",),
    order: str = "keep",
    settings: Settings | None = None,
    context: int = 512,
    dtype: str = "float32",
    device: str = "cpu",
    gradient_checkpointing: bool = False,
    full: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
    progress: Progress | None = None,
) -> Healing | None:
    """Train what each rank of a clustered model stands for, and write the best of it to `out`.

    directory: clustered, complete or codebook-only. text: a UTF-8 file, `builtin`, or `self` for
    what the teacher writes, at most MOST_SAMPLES windows of it. teacher: the dense model, whose
    predictions are then matched; without one the text itself is learnt. held_out: a text to judge
    by (its first windows), else the end of `text`. train: some of codebook, scale, norm. order:
    `keep`, or `free` to let centroids cross (in what is written they meet). dtype: of everything
    but what is trained, which is float32. full: write a directory that needs no base. listener:
    called with each look at the held-out text.

    Killed and called again, it goes on after its last look. Within `torchrun` or `accelerate
    launch` each process takes a part of every batch; the first of them writes, and the others
    return None.
    Raises InputError, FormatError and MissingExtraError, all that can be known without the weights
    before they are read. Cost: a step is about one of fine-tuning, and a forward pass of the
    teacher; memory is the teacher, the packed model, one dense layer, and a window's activations.
    """
    started = time.monotonic()
    settings, progress = settings or Settings(), progress or Silent()
    settings.check()
    options = _Options(tuple(train), order, dtype, gradient_checkpointing, full)
    _check_dtype(dtype, device)
    sources = Sources.open(directory, teacher, text, held_out, context)
    check_parts(sources.clustered.manifest, train, order)
    sources.refuse_inside(Path(out))
    accelerator = _accelerator(device)
    arguments = asdict(options) | asdict(settings) | {"precision": accelerator.mixed_precision}
    job = {"isotone": version("isotone"), **sources.identity(), **arguments}
    found: list[Staging] = []
    with ExitStack() as stack:
        staging_of_out = open_staging(Path(out), job, overwrite=overwrite)
        agreed(accelerator, lambda: found.append(stack.enter_context(staging_of_out)))
        staging = found[0] if found else None
        training, trainable = _prepared(
            sources, options, settings, accelerator, staging, device, progress
        )
        result = _trained(training, trainable, order, staging, listener, progress)
        if staging is None:
            return None
        if not result.improved:
            staging.discard()
            return replace(result, seconds=time.monotonic() - started)
        record = arguments | sources.record() | {"looks": _recorded(result.looks)}
        write = write_complete if full else write_overlay
        write(sources.clustered, trainable.changes(), staging, {"heal": record}, progress=progress)
        with writing(staging.out):
            staging.publish()
    seconds = time.monotonic() - started
    return replace(result, output_bytes=tree_bytes(Path(out)), seconds=seconds)


def _check_dtype(dtype: str, device: str) -> None:
    if dtype not in DTYPES or dtype == "float16":
        known = ", ".join(name for name in DTYPES if name != "float16")
        raise InputError(
            f"dtype {dtype!r}: expected one of {known} (gradients are too small for float16)"
        )
    if device.startswith("mps"):
        raise InputError(f"device {device!r}: has no float64, which codebooks need; give cpu")


def _accelerator(device: str) -> Accelerator:
    accelerator = Accelerator(cpu=device == "cpu")
    if accelerator.mixed_precision == "fp16":
        raise InputError(
            "accelerate's mixed precision is fp16: gradients are too small for it; give bf16"
        )
    return accelerator


def _prepared(
    sources: Sources,
    options: _Options,
    settings: Settings,
    accelerator: Accelerator,
    staging: Staging | None,
    device: str,
    progress: Progress,
) -> tuple[Training, Trainable]:
    """The models loaded, and the training as an interrupted run left it."""
    if accelerator.num_processes > 1:
        device = str(accelerator.device)  # each its own
    progress.begin("loading", 0)
    dense = None
    if sources.teacher is not None:
        dense = load_model(sources.teacher, dtype=options.dtype, device=device)
    student = load_model(sources.files, dtype=options.dtype, device=device, residency="packed")
    if options.gradient_checkpointing:
        checkpoint_layers(student)

    def windows() -> HealingText:
        assert staging is not None
        return sources.all_windows(dense, settings, staging, progress)

    def state() -> tuple[str, bytes] | None:
        assert staging is not None
        path = staging.directory / _STATE
        return (str(path), path.read_bytes()) if path.exists() else None

    text = agreed(accelerator, windows)
    manifest = sources.clustered.manifest
    trainable = open_for_training(student, manifest, options.train, options.order)
    training = Training(accelerator, student, dense, trainable, text, settings)
    left = agreed(accelerator, state)
    if left is not None:
        training.load(left[1], left[0])
    return training, trainable


def _trained(
    training: Training,
    trainable: Trainable,
    order: str,
    staging: Staging | None,
    listener: Listener | None,
    progress: Progress,
) -> Healing:
    """What training came to; drops what there is to go on with where it came to nothing."""

    def save(state: bytes) -> None:
        if staging is not None:
            with writing(staging.out):
                staging.write(_STATE, state)

    def hear(look: Look) -> None:
        if staging is not None and listener is not None:
            listener(look)

    try:
        training.run(save, hear, progress)
        final = None
        if order == "free":
            trainable.restore_order()
            final = training.look()
    except DivergedError:
        if staging is not None:
            staging.discard()
        raise
    return _result(training, final)


def _result(training: Training, final: Look | None) -> Healing:
    """The record of a training that has ended, but for what only writing it shows.

    final: a look at what will be written, where that is not quite the best of the training.
    """
    looks, best = training.state.looks, training.state.best_look
    before, after = looks[0], final or best
    gap = before.perplexity - (before.teacher_perplexity or before.perplexity)
    return Healing(
        improved=after.loss < before.loss,
        perplexity_before=before.perplexity,
        perplexity_after=after.perplexity,
        teacher_perplexity=before.teacher_perplexity,
        gap_closed=(before.perplexity - after.perplexity) / gap if gap > 0 else None,
        loss_before=before.loss,
        loss_after=after.loss,
        n_trained=training.n_trained,
        steps=training.state.step,
        best_step=best.step,
        crossings=training.crossings,
        looks=tuple(looks),
        output_bytes=0,
        training_seconds=training.state.seconds,
        seconds=0.0,
    )


def _recorded(looks: Sequence[Look]) -> list[dict[str, Any]]:
    """Looks as the manifest keeps them: without what differs from run to run."""
    return [{k: v for k, v in asdict(look).items() if k != "seconds"} for look in looks]
