"""What a healing begins with: a clustered model, maybe its teacher, and text."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from transformers import PreTrainedModel

from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.source.model_directory import files_identity
from isotone.checkpoint.staging.staging import Staging, refuse_inside, writing
from isotone.engine.progress import Progress
from isotone.errors import FormatError, InputError
from isotone.healing.settings import Settings
from isotone.healing.text import MOST_HELD_OUT, HealingText, split
from isotone.models.language_model.checks import check_context, check_same_vocabulary, check_tokens
from isotone.models.language_model.files import ModelFiles, open_files
from isotone.models.sampling import sample_text
from isotone.models.text import Tokens, cut_windows, encode, read_text

SELF = "self"
"""In the place of a text: what the teacher writes."""

MOST_SAMPLES = 256
"""Windows that a teacher writes at most: they are trained on again rather than more written."""

_SAMPLES = ".self-text.npy"


@dataclass(frozen=True)
class Sources:
    """The files of a healing, opened and checked; no weights are read.

    clustered: the directory to heal. teacher: the dense model, if there is one. text: the name of
    what is trained on. windows: cut from it; None where the teacher has yet to write it. held_out:
    windows of another text to judge by, if there is one. texts: digests of both, None for none.
    context: tokens of a window.
    """

    files: ModelFiles
    clustered: CompressedDirectory
    teacher: ModelFiles | None
    text: str
    windows: HealingText | None
    held_out: Tokens | None
    texts: tuple[str | None, str | None]
    context: int

    @classmethod
    def open(
        cls,
        directory: str | Path,
        teacher: str | Path | None,
        text: str | Path,
        held_out: str | Path | None,
        context: int,
    ) -> Self:
        """Raises InputError and FormatError for whatever cannot work."""
        files = open_files(directory)
        if files.clustered is None:
            raise InputError(f"{directory}: is dense; expected what isotone compress wrote")
        dense = None if teacher is None else open_files(teacher)
        if dense is not None:
            check_same_vocabulary(files, dense)
        elif str(text) == SELF:
            raise InputError(
                f"there is no text, and {SELF!r} is what a teacher writes; give --text or --teacher"
            )
        if context < 2:
            raise InputError(f"context {context}: expected 2 tokens or more")
        for model in filter(None, (files, dense)):
            check_context(model, context, f"context {context}")
        if str(held_out) == SELF:
            raise InputError(f"held-out {SELF!r}: the teacher writes for training; give a file")
        held, held_digest = None, None
        if held_out is not None:
            tokens, held_digest = _encoded(files, held_out)
            held = cut_windows(tokens, context, MOST_HELD_OUT, str(held_out))
        windows, digest = None, None
        if str(text) != SELF:
            tokens, digest = _encoded(files, text)
            windows = split(tokens, context, str(text), held)
        texts = (digest, held_digest)
        return cls(files, files.clustered, dense, Path(text).name, windows, held, texts, context)

    def refuse_inside(self, out: Path) -> None:
        """Raise InputError where OUT is one of the models, a base, or lies in one."""
        for layer in self.clustered.layers:
            refuse_inside(out, layer.path)
        if self.teacher is not None:
            refuse_inside(out, self.teacher.directory)

    def identity(self) -> dict[str, Any]:
        """What tells these sources from others, as JSON; stats weight files."""
        identity: dict[str, Any] = {
            "directory": self.clustered.digest,
            "text": self.texts[0] or self.text,
            "held_out": self.texts[1],
            "context": self.context,
        }
        if self.teacher is not None:
            weights = sorted(self.teacher.directory.glob("*.safetensors"))
            identity["teacher"] = files_identity(weights)
        return identity

    def record(self) -> dict[str, Any]:
        """What the result records of them: names, digests of texts, and no paths."""
        teacher = None if self.teacher is None else self.teacher.directory.resolve().name
        return {
            "teacher": teacher,
            "text": self.text,
            "text_hash": self.texts[0],
            "held_out_hash": self.texts[1],
            "context": self.context,
        }

    def all_windows(
        self,
        teacher: PreTrainedModel | None,
        settings: Settings,
        staging: Staging,
        progress: Progress,
    ) -> HealingText:
        """The windows to train on and to judge by; what the teacher writes is kept in staging.

        Raises FormatError where that has been damaged since.
        """
        if self.windows is not None:
            return self.windows
        assert teacher is not None
        n_held = 0 if self.held_out is not None else MOST_HELD_OUT
        shape = (min(MOST_SAMPLES, settings.steps * settings.batch) + n_held, self.context)
        path = staging.directory / _SAMPLES
        if not path.exists():
            tokens = sample_text(
                teacher, self.files.tokenizer, *shape, seed=settings.seed, progress=progress
            )
            buffer = io.BytesIO()
            np.save(buffer, tokens)
            with writing(staging.out):
                staging.write(_SAMPLES, buffer.getvalue())
        sampled = _read_samples(path, shape)
        held_out = sampled[:n_held] if self.held_out is None else self.held_out
        return HealingText(sampled[n_held:], held_out)


def _encoded(files: ModelFiles, text: str | Path) -> tuple[Tokens, str]:
    """The tokens of a text, and its digest."""
    content = read_text(text)
    tokens = encode(files.tokenizer, content)
    check_tokens(files, tokens)
    return tokens, hashlib.sha256(content.encode()).hexdigest()


def _read_samples(path: Path, shape: tuple[int, int]) -> Tokens:
    try:
        tokens: Tokens = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path) from error
    if tokens.shape != shape or tokens.dtype != np.int64:
        raise _damaged(path)
    return tokens


def _damaged(path: Path) -> FormatError:
    return FormatError(f"{path}: is damaged; remove {path.parent} and run again")
