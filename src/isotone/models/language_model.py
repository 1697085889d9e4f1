"""A causal language model of transformers and its tokenizer, to run text through in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isotone.errors import InputError, IsotoneError, MissingExtraError


def load_language_model(directory: Path) -> tuple[Any, Any]:
    """The model, in float32 and without gradients of its own, and its tokenizer.

    On a GPU where torch has one. Raises InputError where transformers cannot load them, or weights
    are missing, and MissingExtraError without transformers.
    """
    try:
        import torch
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError("calibrating", "models") from error
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **options)
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True, **options
        )
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
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{directory}: lacks {len(missing)} of the tensors of a causal language model, "
            f"{missing[0]} for one, and calibrating runs it; compress it without --calibrate"
        )
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # one product for each expert, which can be seen
    model.requires_grad_(requires_grad=False)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer
