"""The language model that calibrating runs, in float32 and without gradients of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.errors import InputError
from isotone.models.language_model.files import ModelFiles
from isotone.models.language_model.load import causal_language_model, default_device


def open_files(source: ModelDirectory) -> ModelFiles:
    """Read the config and the tokenizer of an open model directory.

    Parameters
    ----------
    source : ModelDirectory
        The model directory, on this machine.

    Returns
    -------
    ModelFiles
        The files of the model.

    Raises
    ------
    InputError
        If transformers cannot use them.
    """
    with _advice():
        return ModelFiles.of(source)


def load_model(source: ModelDirectory, tensors: dict[str, Any] | None = None) -> Any:
    """Load a model to observe what flows through its matrices.

    Parameters
    ----------
    source : ModelDirectory
        The model directory, on this machine.
    tensors : dict of str to torch.Tensor, optional
        The tensors by their names in the checkpoint, instead of those of the directory. They stay
        where they are; a model that is loaded from the directory goes to the GPU if there is one.

    Returns
    -------
    transformers.PreTrainedModel
        The model in float32 and in evaluation mode; no parameter asks for a gradient.

    Raises
    ------
    InputError
        If transformers cannot load it as a causal language model, or weights are missing.
    """
    with _advice():
        model = causal_language_model(source.directory, tensors=tensors, dtype="float32")
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # one product for each expert, which can be seen
    model.requires_grad_(requires_grad=False)
    return model if tensors is not None else model.to(default_device())


@contextmanager
def _advice() -> Iterator[None]:
    """Add to the message of an InputError what a user can do about it."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{error}; calibrating runs the model, so compress it without --calibrate"
        ) from error
