"""A causal language model of transformers and its tokenizer, to run text through in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isotone.errors import InputError, IsotoneError, MissingExtraError

_OPTIONS = {"trust_remote_code": False, "local_files_only": True}


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer; raises InputError where transformers cannot load it."""
    with _loading(directory) as transformers:
        return transformers.AutoTokenizer.from_pretrained(directory, **_OPTIONS)


def load_config(directory: Path) -> Any:
    """The config; raises InputError where transformers does not know the architecture."""
    with _loading(directory) as transformers:
        return transformers.AutoConfig.from_pretrained(directory, **_OPTIONS)


def load_language_model(directory: Path, tensors: dict[str, Any] | None = None) -> Any:
    """The model, in float32 and without gradients of its own.

    tensors: by name, instead of those of the directory; what they are left as is the caller's.
    On a GPU where torch has one, unless tensors are given. Raises InputError where transformers
    cannot load it, or weights are missing, and MissingExtraError without transformers.
    """
    with _loading(directory) as transformers:
        import torch

        kind, options = transformers.AutoModelForCausalLM, dict[str, Any](_OPTIONS)
        if tensors is not None:
            config = load_config(directory)
            with torch.device("meta"):  # which class it is
                kind = type(kind.from_config(config, trust_remote_code=False))
            options = {"config": config, "state_dict": tensors}
        model, report = kind.from_pretrained(
            directory if tensors is None else None,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{directory}: lacks {len(missing)} of the tensors of a causal language model, "
            f"{missing[0]} for one, and calibrating runs it; compress it without --calibrate"
        )
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # one product for each expert, which can be seen
    model.requires_grad_(requires_grad=False)
    return model.eval() if tensors is not None else model.eval().to(device())


def device() -> str:
    """Where text runs through models."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _loading(directory: Path) -> Iterator[Any]:
    """transformers, quiet for a while, its errors as ours."""
    try:
        import torch  # noqa: F401
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError("calibrating", "models") from error
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    except IsotoneError:
        raise
    except Exception as error:  # transformers raises most kinds, for most causes
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise InputError(
            f"{directory}: calibrating runs the model, and transformers cannot load it as a causal "
            f"language model: {reason}; compress it without --calibrate"
        ) from error
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
