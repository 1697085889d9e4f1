"""What a healing begins with: a clustered model, maybe its teacher, and text."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from transformers import PreTrainedModel

from isotone.checkpoint.compressed_directory import CompressedDirectory
from isotone.checkpoint.manifest import MANIFEST_FILE
from isotone.checkpoint.model_directory import files_identity
from isotone.checkpoint.staging import Staging
from isotone.engine.local import Progress
from isotone.errors import InputError
from isotone.evaluate.loading import (
    ModelFiles,
    check_context,
    check_same_vocabulary,
    check_tokens,
    open_files,
)
from isotone.evaluate.windows import Tokens, cut_windows, encode, read_text
from isotone.heal.text import MOST_HELD_OUT, HealingText, split
from isotone.heal.training import Settings
from isotone.models.sampling import sample_text

SELF = "self"
"""In the place of a text: what the teacher writes."""

MOST_SAMPLES = 256
"""Windows that a teacher writes at most: they are trained on again rather than more written."""

_SAMPLES = ".self-text.npy"


@dataclass(frozen=True)
class Sources:
    """The files of a healing, opened and checked; no weights are read.

    clustered: the directory to heal. teacher: the dense model, if there is one. text, held_out: as
    they were given; held_out may be None. context: tokens of a window.
    """

    files: ModelFiles
    clustered: CompressedDirectory
    teacher: ModelFiles | None
    text: str
    held_out: str | None
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
        if not (files.directory / MANIFEST_FILE).is_file():
            raise InputError(f"{directory}: is dense; expected what isotone compress wrote")
        clustered = CompressedDirectory.open(files.directory)
        expected = None if teacher is None else open_files(teacher)
        if expected is not None:
            check_same_vocabulary(files, expected)
        elif str(text) == SELF:
            raise InputError(
                f"there is no text, and {SELF!r} is what a teacher writes; give --text or --teacher"
            )
        for model in (files, expected):
            if model is not None:
                check_context(model, context, f"context {context}")
        if context < 2:
            raise InputError(f"context {context}: expected 2 tokens or more")
        held = None if held_out is None else str(held_out)
        return cls(files, clustered, expected, str(text), held, context)

    def identity(self) -> dict[str, Any]:
        """What tells these sources from others, as JSON; reads texts, and stats weight files."""
        identity: dict[str, Any] = {"directory": self.clustered.digest, "context": self.context}
        for name, text in (("text", self.text), ("held_out", self.held_out)):
            is_text = text is not None and text != SELF
            identity[name] = _digest(read_text(str(text))) if is_text else text
        if self.teacher is not None:
            weights = sorted(self.teacher.directory.glob("*.safetensors"))
            identity["teacher"] = files_identity(weights)
        return identity

    def windows(
        self,
        teacher: PreTrainedModel | None,
        settings: Settings,
        staging: Staging,
        progress: Progress,
    ) -> HealingText:
        """The windows to train on and to judge by; text that the teacher writes is kept in staging.

        Raises InputError where there is too little text.
        """
        held_out = None
        if self.held_out is not None:
            tokens = self._encoded(self.held_out)
            held_out = cut_windows(tokens, self.context, MOST_HELD_OUT, self.held_out)
        if self.text != SELF:
            return split(self._encoded(self.text), self.context, self.text, held_out)
        assert teacher is not None
        n_held = 0 if held_out is not None else MOST_HELD_OUT
        n = min(MOST_SAMPLES, settings.steps * settings.batch) + n_held
        sampled = self._sampled(teacher, n, settings.seed, staging, progress)
        held_out = sampled[:n_held] if held_out is None else held_out
        return HealingText(sampled[n_held:], held_out)

    def _encoded(self, text: str) -> Tokens:
        tokens = encode(self.files.tokenizer, read_text(text))
        check_tokens(self.files, tokens)
        return tokens

    def _sampled(
        self, teacher: PreTrainedModel, n: int, seed: int, staging: Staging, progress: Progress
    ) -> Tokens:
        path = staging.directory / _SAMPLES
        if not path.exists():
            tokens = sample_text(
                teacher, self.files.tokenizer, n, self.context, seed=seed, progress=progress
            )
            buffer = io.BytesIO()
            np.save(buffer, tokens)
            staging.write(_SAMPLES, buffer.getvalue())
        loaded: Tokens = np.load(path, allow_pickle=False)
        return loaded


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
