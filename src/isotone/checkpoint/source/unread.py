"""What to tell a user whose model is in a form that isotone does not read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from isotone.checkpoint.gguf.split import n_parts_by_name, one_part
from isotone.checkpoint.source.companions import weight_format
from isotone.checkpoint.source.model_json import read_json
from isotone.checkpoint.source.weight_files import CONVERSION, is_adapter
from isotone.errors import InputError

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
"""The suffixes of weights that are stored as pickles."""

FOREIGN_CONVERSION = (
    "look for a copy as safetensors, or convert them with the program that wrote them or its "
    "conversion script in transformers"
)
"""What to do with other pickles."""

_ADAPTER_CONFIG = "adapter_config.json"
_OF_TRAINING = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt")


def no_weights(directory: Path) -> InputError:
    """Return the error for a directory without safetensors weights: what is there, what to do.

    Parameters
    ----------
    directory : Path
        The directory.

    Returns
    -------
    InputError
        To be raised.
    """
    files = sorted(path.name for path in directory.iterdir() if path.is_file())
    adapters = [name for name in files if is_adapter(name)]
    files = [name for name in files if name not in {*adapters, *_OF_TRAINING}]
    ggufs = [name for name in files if name.endswith(".gguf")]
    pickles = [name for name in files if Path(name).suffix in PICKLES]
    usual = any(name.startswith("pytorch_model") for name in pickles)
    if adapters and not usual:
        return adapter_alone(directory)
    if ggufs and not pickles:
        whole = [name for name in ggufs if n_parts_by_name(name) == 1]
        if not whole:
            return one_part(directory / ggufs[0], n_parts_by_name(ggufs[0]))
        return InputError(
            f"{directory}: holds its weights as GGUF ({_some(ggufs)}); give the file itself, "
            f"{directory / whole[0]}"
        )
    if pickles:
        return InputError(
            f"{directory}: holds its weights as pickles ({_some(pickles)}), which can run code and "
            f"are not read; {CONVERSION if usual else FOREIGN_CONVERSION}"
        )
    other = [name for name in files if weight_format(name) is not None]
    if other:
        return InputError(
            f"{directory}: holds its weights as {weight_format(other[0])} ({_some(other)}), which "
            "isotone does not read; fetch or save the model as safetensors"
        )
    inner = sorted({path.parent.name for path in directory.glob("*/*.safetensors")})
    if inner:
        return InputError(
            f"{directory}: holds no weights itself; its folders do ({_some(inner)}): give one of "
            "them"
        )
    return InputError(f"{directory}: holds no .safetensors file; expected a model directory")


def adapter_alone(path: Path) -> InputError:
    """Return the error for an adapter without its base model.

    Parameters
    ----------
    path : Path
        The directory of the adapter, or its file.

    Returns
    -------
    InputError
        To be raised.
    """
    config = read_json((path if path.is_dir() else path.parent) / _ADAPTER_CONFIG)
    base = config.get("base_model_name_or_path")
    return InputError(
        f"{path}: is an adapter without its base model{f' ({base})' if base else ''}; merge it "
        "first (PEFT: merge_and_unload(), then save_pretrained(NEW)) and compress NEW, or compress "
        "the base model and load the adapter on top of it"
    )


def _some(names: Iterable[str]) -> str:
    first, *more = names
    return f"{first} and {len(more)} more" if more else first
