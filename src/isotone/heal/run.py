"""Heal a clustered model: one call, one directory, one record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from isotone.checkpoint.staging import Staging, refuse_inside, writing
from isotone.engine.local import Progress, Silent
from isotone.evaluate.loading import load_model
from isotone.heal.checkpointing import checkpoint_layers
from isotone.heal.crossings import CrossingCount
from isotone.heal.sources import SELF, Sources
from isotone.heal.trainable import open_for_training
from isotone.heal.training import Listener, Look, Settings, Training
from isotone.pipeline.recode import write_codebooks, write_complete

_STATE = ".training.pt"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Healing:
    """What healing came to, on the held-out text.

    improved: whether the held-out loss fell; where it did not, nothing was written. The `before`
    figures are of the model as it was, the `after` ones of the best values, which were written.
    loss: the divergence from the teacher, or the cross-entropy without one, in nats a token.
    teacher_perplexity, gap_closed: of the teacher, and the share of what clustering had cost that
    came back; None without a teacher. n_trained: numbers. steps: made; best_step: the best of them.
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
) -> Healing:
    """Train what each rank of a clustered model stands for, and write the best of it to `out`.

    directory: clustered, complete or codebook-only. text: a UTF-8 file, `builtin`, or `self` for
    what the teacher writes, at most MOST_SAMPLES windows of it. teacher: the dense model, whose
    predictions are then matched; without one the text itself is learnt. held_out: a text to judge
    by, else the end of `text`. train: some of codebook, scale, norm. order: `keep`, or `free` to
    let centroids cross (in what is written they meet). dtype: of everything but what is trained,
    which is float32. full: write a directory that needs no base. listener: called with each look at
    the held-out text.

    Killed and called again, it goes on after its last look. Within `accelerate launch` each
    process takes a part of every batch, and the first of them writes.
    Raises InputError, FormatError and MissingExtraError, all that can be known without the weights
    before they are read. Cost: a step is about one of fine-tuning, and a forward pass of the
    teacher; memory is the teacher, the packed model, one dense layer, and a window's activations.
    """
    started = time.monotonic()
    settings, progress = settings or Settings(), progress or Silent()
    settings.check()
    sources = Sources.open(directory, teacher, text, held_out, context)
    for layer in sources.clustered.layers:
        refuse_inside(Path(out), layer.path)
    arguments = {
        "train": list(train),
        "order": order,
        **asdict(settings),
        "dtype": dtype,
        "gradient_checkpointing": gradient_checkpointing,
    }
    job = {"isotone": version("isotone"), "heal": arguments, "full": full} | sources.identity()
    accelerator = Accelerator(cpu=device == "cpu")
    if accelerator.num_processes > 1:
        device = str(accelerator.device)  # each its own
    with _staging(accelerator, Path(out), job, overwrite=overwrite) as staging:
        progress.begin("loading", 0)
        dense = None
        if sources.teacher is not None:
            dense = load_model(sources.teacher, dtype=dtype, device=device)
        student = load_model(sources.files, dtype=dtype, device=device, residency="packed")
        windows = _agreed(
            accelerator, staging, lambda kept: sources.windows(dense, settings, kept, progress)
        )
        if gradient_checkpointing:
            checkpoint_layers(student)
        trainable = open_for_training(student, sources.clustered.manifest, train, order)
        training = Training(accelerator, student, dense, trainable, windows, settings)
        state = _agreed(accelerator, staging, _read_state)
        if state is not None:
            training.load(state)
        hear = listener if listener is not None and staging is not None else _nothing
        training.run(_saving(staging), hear, progress)
        if order == "free":
            trainable.restore_order()
        result = _result(training, training.look() if order == "free" else None)
        if result.improved and staging is not None:
            record = arguments | {"text": sources.text, "looks": _recorded(result.looks)}
            write = write_complete if full else write_codebooks
            changes = trainable.changes()
            write(sources.clustered, changes, staging, {"heal": record}, progress=progress)
            with writing(staging.out):
                staging.publish()
    return replace(
        result,
        output_bytes=_size(Path(out)) if result.improved else 0,
        seconds=time.monotonic() - started,
    )


@contextmanager
def _staging(
    accelerator: Accelerator, out: Path, job: dict[str, Any], *, overwrite: bool
) -> Iterator[Staging | None]:
    """The staging directory in the process that writes, None in the others."""
    if not accelerator.is_main_process:
        yield None
        return
    with Staging.open(out, job, overwrite=overwrite) as staging:
        yield staging


def _agreed(
    accelerator: Accelerator, staging: Staging | None, find: Callable[[Staging], Result]
) -> Result:
    """What the process that writes has found, in all processes."""
    found: list[Any] = [None if staging is None else find(staging)]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    result: Result = found[0]
    return result


def _read_state(staging: Staging) -> bytes | None:
    path = staging.directory / _STATE
    return path.read_bytes() if path.exists() else None


def _nothing(_: Look) -> None:
    pass


def _saving(staging: Staging | None) -> Callable[[bytes], None]:
    def save(state: bytes) -> None:
        if staging is not None:
            with writing(staging.out):
                staging.write(_STATE, state)

    return save


def _result(training: Training, final: Look | None) -> Healing:
    """The record of a training that has ended, but for what only writing it shows.

    final: a look at what will be written, where that is not quite the best of the training.
    """
    looks, best = training.state.looks, training.state.best_look
    before, after = looks[0], final or best
    gap_closed = None
    if before.teacher_perplexity is not None:
        gap = before.perplexity - before.teacher_perplexity
        gap_closed = (before.perplexity - after.perplexity) / gap if gap else None
    return Healing(
        improved=after.loss < before.loss,
        perplexity_before=before.perplexity,
        perplexity_after=after.perplexity,
        teacher_perplexity=before.teacher_perplexity,
        gap_closed=gap_closed,
        loss_before=before.loss,
        loss_after=after.loss,
        n_trained=training.n_trained,
        steps=training.state.step,
        best_step=best.step,
        crossings=training.crossed,
        looks=tuple(looks),
        output_bytes=0,
        training_seconds=training.state.seconds,
        seconds=0.0,
    )


def _recorded(looks: Sequence[Look]) -> list[dict[str, Any]]:
    """Looks as the manifest keeps them: without what differs from run to run."""
    return [{k: v for k, v in asdict(look).items() if k != "seconds"} for look in looks]


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
