"""`isotone.heal`: one call trains the values of a clustered model and writes one directory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel

from isotone.checkpoint.overlay.write import write_complete, write_overlay
from isotone.checkpoint.staging.open import open_staging
from isotone.checkpoint.staging.staging import Staging, writing
from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError
from isotone.healing.checkpointing import checkpoint_layers
from isotone.healing.inputs import SELF, HealingInputs
from isotone.healing.processes import agreed
from isotone.healing.result import Healing, healing_of, recorded
from isotone.healing.settings import HealSettings
from isotone.healing.state import Validation
from isotone.healing.text import HealingText
from isotone.healing.trainable import Trainable, check_parts, open_for_training
from isotone.healing.training import DivergedError, Training, ValidationListener
from isotone.models.language_model.load import DTYPES, load_model
from isotone.models.prefix import AUTO
from isotone.pipeline.summary import tree_bytes

_STATE = ".training.pt"


def heal(
    directory: str | Path,
    out: str | Path,
    *,
    text: str | Path = SELF,
    teacher: str | Path | None = None,
    held_out: str | Path | None = None,
    train: Sequence[str] = ("codebook",),
    order: str = "keep",
    settings: HealSettings | None = None,
    context: int = 512,
    bos: str = AUTO,
    dtype: str = "float32",
    device: str = "cpu",
    gradient_checkpointing: bool = False,
    full: bool = False,
    overwrite: bool = False,
    listener: ValidationListener | None = None,
    progress: Progress | None = None,
) -> Healing | None:
    """Train the values of a clustered model, and write the best of them to a directory.

    Ranks and protected weights (outliers that are kept exactly) stay as they are. A run that was
    killed continues after its last validation when it is called again. Within `torchrun` or
    `accelerate launch` each process takes a part of every batch.

    Parameters
    ----------
    directory : str or Path
        A clustered model, complete or codebook-only.
    out : str or Path
        The directory to write.
    text : str or Path
        A UTF-8 file to train on, `builtin` for the text that Python ships, or `self` for text that
        the teacher writes, at most `inputs.MOST_SAMPLES` windows.
    teacher : str or Path, optional
        The dense model, whose predictions are then matched. Without one the text itself is learnt.
    held_out : str or Path, optional
        A text to judge by, of which the first windows are taken; by default the end of `text`.
    train : sequence of str
        What to train: some of `codebook`, `scale` and `norm`.
    order : str
        `keep`, or `free` to let centroids cross; in what is written they meet.
    settings : HealSettings, optional
        The numbers of steps, the learning rate and the seed.
    context : int
        The number of tokens in a window, at least 2.
    bos : str
        What every window begins with, and what the teacher writes: `auto`, `yes` or `no`, as
        `isotone.evaluate` takes it.
    dtype : str
        The dtype of everything that is not trained: `float32`, `bfloat16`, or `auto` for the dtype
        of the files. What is trained is float32.
    device : str
        Where to train, as torch names it.
    gradient_checkpointing : bool
        Whether activations are recomputed in the backward pass instead of kept.
    full : bool
        Whether a directory is written that needs no base; by default it names `directory` as its
        base and holds only what was trained.
    overwrite : bool
        Whether an `out` that exists is replaced.
    listener : callable, optional
        Is called with each validation on the held-out text.
    progress : Progress, optional
        Is told how many tokens are trained on.

    Returns
    -------
    Healing or None
        The result; None in all processes but the first, which writes.

    Raises
    ------
    InputError
        If the inputs do not fit together, or if the training diverges; what can be known without
        the weights is checked before they are read.
    FormatError
        If the directory, or the state of an interrupted run, is damaged.

    Notes
    -----
    A step costs about as much as one of fine-tuning, and a forward pass of the teacher. Memory
    holds the teacher, the packed model, one dense layer, and the activations of a window.

    Examples
    --------
    >>> import isotone
    >>> result = isotone.heal("clustered", "healed", teacher="dense")  # doctest: +SKIP
    >>> print(result.perplexity_before, result.perplexity_after)  # doctest: +SKIP
    """
    started = time.monotonic()
    settings, progress = settings or HealSettings(), progress or Silent()
    settings.check()
    _check_dtype(dtype, device)
    inputs = HealingInputs.open(directory, teacher, text, held_out, context, bos)
    check_parts(inputs.clustered.manifest, train, order)
    inputs.refuse_inside(Path(out))
    options = _Options(tuple(train), order, dtype, gradient_checkpointing, full)
    run = _Run(inputs, options, settings, _accelerator(device), device, listener, progress)
    result = run.into(Path(out), overwrite=overwrite)
    return None if result is None else replace(result, seconds=time.monotonic() - started)


@dataclass(frozen=True)
class _Options:
    """The options of `heal` that are not in HealSettings."""

    train: tuple[str, ...]
    order: str
    dtype: str
    gradient_checkpointing: bool
    full: bool


@dataclass(frozen=True)
class _Run:
    """One healing, in one of its processes."""

    inputs: HealingInputs
    options: _Options
    settings: HealSettings
    accelerator: Accelerator
    device: str
    listener: ValidationListener | None
    progress: Progress

    def into(self, out: Path, *, overwrite: bool) -> Healing | None:
        """Train, and write a directory; only the main process returns a result."""
        with self._staging(out, overwrite) as staging:
            training, trainable = self._prepared(staging)
            result = self._trained(training, trainable, staging)
            if staging is None:
                return None
            if not result.improved:
                staging.discard()
                return result
            self._write(trainable, result, staging)
        return replace(result, output_bytes=tree_bytes(out))

    @property
    def _arguments(self) -> dict[str, Any]:
        """How the healing was asked for, as the manifest records it."""
        precision = {"precision": self.accelerator.mixed_precision}
        return asdict(self.options) | asdict(self.settings) | precision

    @contextmanager
    def _staging(self, out: Path, overwrite: bool) -> Iterator[Staging | None]:
        """Hold the staging directory of OUT in the main process; the others have None."""
        job = {"isotone": version("isotone"), **self.inputs.identity(), **self._arguments}
        found: list[Staging] = []
        with ExitStack() as stack:
            opening = open_staging(out, job, overwrite=overwrite)
            agreed(self.accelerator, lambda: found.append(stack.enter_context(opening)))
            yield found[0] if found else None

    def _prepared(self, staging: Staging | None) -> tuple[Training, Trainable]:
        """Load the models, and return the training as an interrupted run left it."""
        student, teacher = self._models()

        def windows() -> HealingText:
            assert staging is not None
            return self.inputs.all_windows(teacher, self.settings, staging, self.progress)

        def state() -> tuple[str, bytes] | None:
            assert staging is not None
            path = staging.directory / _STATE
            return (str(path), path.read_bytes()) if path.exists() else None

        text = agreed(self.accelerator, windows)
        manifest, options = self.inputs.clustered.manifest, self.options
        trainable = open_for_training(student, manifest, options.train, options.order)
        training = Training(self.accelerator, student, teacher, trainable, text, self.settings)
        left = agreed(self.accelerator, state)
        if left is not None:
            training.load(left[1], left[0])
        return training, trainable

    def _models(self) -> tuple[PreTrainedModel, PreTrainedModel | None]:
        """Load the student, packed, and the teacher if there is one."""
        several = self.accelerator.num_processes > 1
        device = str(self.accelerator.device) if several else self.device  # Each has its own.
        self.progress.begin("loading", 0)
        inputs, dtype, teacher = self.inputs, self.options.dtype, None
        if inputs.teacher is not None:
            teacher = load_model(inputs.teacher, dtype=dtype, device=device)
        student = load_model(inputs.files, dtype=dtype, device=device, residency="packed")
        if self.options.gradient_checkpointing:
            checkpoint_layers(student)
        return student, teacher

    def _trained(
        self, training: Training, trainable: Trainable, staging: Staging | None
    ) -> Healing:
        """Train, and return the result; a training that diverges leaves nothing to continue."""

        def save(state: bytes) -> None:
            if staging is not None:
                with writing(staging.out):
                    staging.write(_STATE, state)

        def hear(validation: Validation) -> None:
            if staging is not None and self.listener is not None:
                self.listener(validation)

        try:
            training.run(save, hear, self.progress)
            final = None
            if self.options.order == "free":
                trainable.restore_order()
                final = training.validation()
        except DivergedError:
            if staging is not None:
                staging.discard()
            raise
        return healing_of(training, final, self.inputs.prefix.names)

    def _write(self, trainable: Trainable, result: Healing, staging: Staging) -> None:
        record = self._arguments | self.inputs.record() | {"looks": recorded(result.looks)}
        write = write_complete if self.options.full else write_overlay
        values, arguments = trainable.overlays(), {"heal": record}
        write(self.inputs.clustered, values, staging, arguments, progress=self.progress)
        with writing(staging.out):
            staging.publish()


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
