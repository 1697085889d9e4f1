"""What a healing starts from: a clustered model, its teacher if there is one, and text."""

from __future__ import annotations

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
from isotone.evaluation.provenance import text_hash
from isotone.healing.settings import HealSettings
from isotone.healing.text import MOST_HELD_OUT, HealingText, split
from isotone.models.language_model.checks import check_context, check_same_vocabulary, check_tokens
from isotone.models.language_model.files import ModelFiles, open_files
from isotone.models.prefix import AUTO, Prefix, check_same_prefix, find_prefix
from isotone.models.sampling import sample_text
from isotone.models.text import Tokens, cut_windows, encode, read_text

SELF = "self"
"""In the place of a text: the text that the teacher writes."""

MOST_SAMPLES = 256
"""The most windows that a teacher writes; after them they are trained on again."""

_SAMPLES = ".self-text.npy"


@dataclass(frozen=True)
class HealingInputs:
    """The files of a healing, each opened once and checked; no weights are read.

    Attributes
    ----------
    files : ModelFiles
        The files of the model to heal.
    clustered : CompressedDirectory
        Its directory.
    teacher : ModelFiles, optional
        The files of the dense model.
    text : str
        The name of the text to train on.
    windows : HealingText, optional
        Windows of that text; None where the teacher has yet to write it.
    held_out : int64 array, `[m, context]`, optional
        Windows of another text to judge by.
    texts : tuple of two str, optional each
        SHA-256 of the text to train on and of the one to judge by.
    context : int
        The number of tokens in a window.
    prefix : Prefix
        The tokens that every window begins with.
    """

    files: ModelFiles
    clustered: CompressedDirectory
    teacher: ModelFiles | None
    text: str
    windows: HealingText | None
    held_out: Tokens | None
    texts: tuple[str | None, str | None]
    context: int
    prefix: Prefix

    @classmethod
    def open(
        cls,
        directory: str | Path,
        teacher: str | Path | None,
        text: str | Path,
        held_out: str | Path | None,
        context: int,
        bos: str = AUTO,
    ) -> Self:
        """Open and check everything that can be checked without reading weights.

        Parameters
        ----------
        directory : str or Path
            The clustered model.
        teacher : str or Path, optional
            The dense model.
        text : str or Path
            A UTF-8 file, `builtin`, or `self` for what the teacher writes.
        held_out : str or Path, optional
            A UTF-8 file or `builtin`, to judge by.
        context : int
            The number of tokens in a window, at least 2.
        bos : str
            What every window begins with: `auto`, `yes` or `no`.

        Returns
        -------
        HealingInputs
            The files and the windows.

        Raises
        ------
        InputError
            If the model is dense, or the inputs do not fit together.
        FormatError
            If the model's directory is damaged.
        """
        files = open_files(directory)
        if files.clustered is None:
            raise InputError(f"{directory}: is dense; expected what isotone compress wrote")
        dense = None if teacher is None else open_files(teacher)
        _check_models(files, dense, context, bos)
        prefix = find_prefix(files, bos)
        check_tokens(files, np.asarray(prefix.tokens, np.int64))
        _check_texts(text, held_out, has_teacher=dense is not None)
        held, held_digest = None, None
        if held_out is not None:
            tokens, held_digest = _encoded(files, held_out)
            held = cut_windows(tokens, context, MOST_HELD_OUT, str(held_out), prefix.tokens)
        windows, digest = None, None
        if str(text) != SELF:
            tokens, digest = _encoded(files, text)
            windows = split(tokens, context, str(text), held, prefix.tokens)
        texts = (digest, held_digest)
        name = Path(text).name
        return cls(files, files.clustered, dense, name, windows, held, texts, context, prefix)

    def refuse_inside(self, out: Path) -> None:
        """Raise InputError if a result would be written over a model or a base, or into one.

        Parameters
        ----------
        out : Path
            The directory that will be written.
        """
        for layer in self.clustered.layers:
            refuse_inside(out, layer.path)
        if self.teacher is not None:
            refuse_inside(out, self.teacher.directory)

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes these inputs from others, as JSON.

        Of a teacher it is the names, sizes and times of the weight files, which are not read.
        """
        identity: dict[str, Any] = {
            "directory": self.clustered.digest,
            "text": self.texts[0] or self.text,
            "held_out": self.texts[1],
            "context": self.context,
        }
        if self.prefix:  # Without one the job is that of a version that knew none.
            identity["bos"] = list(self.prefix.names)
        if self.teacher is not None:
            weights = sorted(self.teacher.directory.glob("*.safetensors"))
            identity["teacher"] = files_identity(weights)
        return identity

    def record(self) -> dict[str, Any]:
        """Return what the result records of the inputs: names, digests of texts, and no paths."""
        teacher = None if self.teacher is None else self.teacher.directory.resolve().name
        return {
            "teacher": teacher,
            "text": self.text,
            "text_hash": self.texts[0],
            "held_out_hash": self.texts[1],
            "context": self.context,
            "bos": list(self.prefix.names),
        }

    def all_windows(
        self,
        teacher: PreTrainedModel | None,
        settings: HealSettings,
        staging: Staging,
        progress: Progress,
    ) -> HealingText:
        """Return the windows to train on and to judge by; the teacher writes them if need be.

        Parameters
        ----------
        teacher : PreTrainedModel, optional
            The teacher, loaded.
        settings : HealSettings
            The numbers of steps and windows, and the seed.
        staging : Staging
            Where the text that the teacher writes is kept for an interrupted run.
        progress : Progress
            Is told how many tokens are written.

        Returns
        -------
        HealingText
            The windows.

        Raises
        ------
        FormatError
            If the text that an earlier run has written is damaged.
        """
        if self.windows is not None:
            return self.windows
        assert teacher is not None
        n_held = 0 if self.held_out is not None else MOST_HELD_OUT
        shape = (min(MOST_SAMPLES, settings.steps * settings.batch) + n_held, self.context)
        path = staging.directory / _SAMPLES
        if not path.exists():
            how: dict[str, Any] = {"seed": settings.seed, "progress": progress}
            how["prefix"] = self.prefix.tokens
            tokens = sample_text(teacher, self.files.tokenizer, *shape, **how)
            buffer = io.BytesIO()
            np.save(buffer, tokens)
            with writing(staging.out):
                staging.write(_SAMPLES, buffer.getvalue())
        sampled = _read_samples(path, shape)
        held_out = sampled[:n_held] if self.held_out is None else self.held_out
        return HealingText(sampled[n_held:], held_out, len(self.prefix))


def _check_models(files: ModelFiles, teacher: ModelFiles | None, context: int, bos: str) -> None:
    if teacher is not None:
        check_same_vocabulary(files, teacher)
        check_same_prefix(files, teacher, bos)
    if context < 2:
        raise InputError(f"context {context}: expected 2 tokens or more")
    for model in filter(None, (files, teacher)):
        check_context(model, context, f"context {context}")


def _check_texts(text: str | Path, held_out: str | Path | None, *, has_teacher: bool) -> None:
    if str(text) == SELF and not has_teacher:
        raise InputError(
            f"text is {SELF!r}, which a teacher writes; give --teacher, or a file as --text"
        )
    if str(held_out) == SELF:
        raise InputError(f"held-out {SELF!r}: the teacher writes for training; give a file")


def _encoded(files: ModelFiles, text: str | Path) -> tuple[Tokens, str]:
    """Return the tokens of a text, and its SHA-256."""
    content = read_text(text)
    tokens = encode(files.tokenizer, content)
    check_tokens(files, tokens)
    return tokens, text_hash(content)


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
