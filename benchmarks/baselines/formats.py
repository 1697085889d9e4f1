"""The data-free weight formats that people use: each makes the round trip of one matrix.

Every function quantises and dequantises a matrix by the baseline's own code. Bits are bytes: all
that the baseline stores for a matrix (codes, scales, zeros, tables), in the dtype in which it
stores them. llama.cpp's types are what `llama-quantize --pure` uses: one type for every matrix,
and where its blocks do not fit the rows, the type that llama.cpp falls back to. Its mixtures
(Q4_K_M and so on), which give some matrices more bits, are not here, nor is what needs data.
"""

import contextlib
import ctypes
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path

import torch
from gguf import GGMLQuantizationType

from isotone.errors import InputError

FALLBACKS = {"Q4_K": "Q5_0", "Q3_K": "Q4_0"}
"""Types for rows whose length is no multiple of 256 (`tensor_type_fallback` in llama.cpp)."""


@dataclass(frozen=True)
class RoundTrip:
    """A matrix after a round trip: its weights, `[rows, columns]` float32, and the bytes stored."""

    weight: torch.Tensor
    n_bytes: int


def nf4(weight: torch.Tensor, *, nested: bool) -> RoundTrip:
    """Apply NF4 of bitsandbytes in blocks of 64 (QLoRA, arXiv 2305.14314); bytes of its state."""
    from bitsandbytes import functional

    codes, state = functional.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=nested
    )
    stored = [codes, *state.as_dict(packed=True).values()]
    return RoundTrip(functional.dequantize_4bit(codes, state), _n_bytes(stored))


def hqq(weight: torch.Tensor, *, bits: int) -> RoundTrip:
    """Apply HQQ with its own defaults, groups of 64 (Badri and Shaji 2023); bytes of its state."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    config = BaseQuantizeConfig(nbits=bits, group_size=64)
    layer = HQQLinear.from_weights(weight.clone(), None, config, device="cpu")
    return RoundTrip(layer.dequantize().float(), _n_bytes(layer.state_dict().values()))


def palettized(weight: torch.Tensor, *, bits: int) -> RoundTrip:
    """Apply one k-means of coremltools to a matrix; bytes of packed codes and a float16 table."""
    from coremltools.optimize.torch import palettization as coreml

    rows, columns = weight.shape
    logging.getLogger("coremltools.optimize.torch").setLevel(logging.WARNING)
    network = torch.nn.Sequential(torch.nn.Linear(columns, rows, bias=False))
    network[0].weight.data.copy_(weight)
    options = {"global_config": {"n_bits": bits, "granularity": "per_tensor"}}
    config = coreml.PostTrainingPalettizerConfig.from_dict(options)
    palettizer = coreml.PostTrainingPalettizer(network, config)
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar for every matrix
        after = palettizer.compress(inplace=True)[0].weight.detach()
    if len(after.unique()) > 1 << bits:
        raise RuntimeError(f"coremltools left a matrix of {rows} x {columns} as it was")
    return RoundTrip(after, -(-bits * weight.numel() // 8) + 2 * (1 << bits))


def llama_cpp(weight: torch.Tensor, *, name: str) -> RoundTrip:
    """Apply a type of llama.cpp, without an importance matrix, or the type it falls back to."""
    ggml = _ggml()
    kind = GGMLQuantizationType[name]
    rows, columns = weight.shape
    if columns % ggml.ggml_blck_size(kind):
        kind = GGMLQuantizationType[FALLBACKS[name]]
    source, after = weight.contiguous(), torch.empty(rows, columns)
    stored = ctypes.create_string_buffer(rows * ggml.ggml_row_size(kind, columns))
    n_bytes = ggml.ggml_quantize_chunk(kind, source.data_ptr(), stored, 0, rows, columns, None)
    dequantize = getattr(ggml, f"dequantize_row_{ggml.ggml_type_name(kind).decode()}")
    dequantize.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
    dequantize(stored, after.data_ptr(), weight.numel())
    return RoundTrip(after, n_bytes)


@cache
def _ggml() -> ctypes.CDLL:
    """Open llama.cpp's library of types, which the package libggml-python carries."""
    folder = Path(import_module("libggml").__file__).parent
    library = ctypes.CDLL(str(min(folder.rglob("libggml-base.*"))))
    kind, size, address = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_blck_size.restype = size
    library.ggml_row_size.restype = ctypes.c_size_t
    library.ggml_row_size.argtypes = kind, size
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = kind, address, address, size, size, size, address
    return library


def _n_bytes(stored: Iterable[torch.Tensor]) -> int:
    return sum(part.numel() * part.element_size() for part in stored)


@dataclass(frozen=True)
class Baseline:
    """A format: its family (a key of FAMILIES), label, round trip, and what its bytes are."""

    family: str
    label: str
    round_trip: Callable[[torch.Tensor], RoundTrip]
    note: str


FAMILIES = {
    "NF4": ("bitsandbytes", "bitsandbytes.functional"),
    "HQQ": ("hqq", "hqq.core.quantize"),
    "coremltools": ("coremltools", "coremltools.optimize.torch.palettization"),
    "llama.cpp": ("libggml-python", "libggml"),
}
"""The package and the module that each family needs."""

_NF4 = "float32 absmax per block, 4 + 32/64 bits; its layers keep none in 16 bits (4.25)"
_NESTED = "absmax in 8 bits, in blocks of 256 with float32 scales; tables of 1 KB per matrix"
_HQQ = "float16 scale and zero per group along the row, codes packed as hqq packs them (3 in 3.2)"
_TABLE = "one table of float16 values per matrix, codes packed: the bytes of a Core ML file"
_PURE = "blocks of 32 with a float16 scale, in every matrix (llama-quantize --pure)"
_ELSE = "the second where rows are no multiple of 256: in all but down_proj (llama-quantize --pure)"
BASELINES = {
    "nf4": Baseline("NF4", "NF4, block 64", partial(nf4, nested=False), _NF4),
    "nf4-nested": Baseline("NF4", "NF4, double quantisation", partial(nf4, nested=True), _NESTED),
    "hqq4": Baseline("HQQ", "HQQ 4-bit, group 64", partial(hqq, bits=4), _HQQ),
    "hqq3": Baseline("HQQ", "HQQ 3-bit, group 64", partial(hqq, bits=3), _HQQ),
    "kmeans6": Baseline("coremltools", "coremltools 6-bit", partial(palettized, bits=6), _TABLE),
    "kmeans4": Baseline("coremltools", "coremltools 4-bit", partial(palettized, bits=4), _TABLE),
    "q4_0": Baseline("llama.cpp", "Q4_0", partial(llama_cpp, name="Q4_0"), _PURE),
    "iq4_nl": Baseline("llama.cpp", "IQ4_NL", partial(llama_cpp, name="IQ4_NL"), _PURE),
    "q4_k": Baseline("llama.cpp", "Q4_K, else Q5_0", partial(llama_cpp, name="Q4_K"), _ELSE),
    "q3_k": Baseline("llama.cpp", "Q3_K, else Q4_0", partial(llama_cpp, name="Q3_K"), _ELSE),
}


def check_installed(names: Sequence[str]) -> None:
    """Raise InputError for an unknown name, or for a package that cannot be imported."""
    for name in names:
        if name not in BASELINES:
            raise InputError(f"{name}: no such baseline; expected some of {', '.join(BASELINES)}")
        package, module = FAMILIES[BASELINES[name].family]
        try:
            import_module(module)
        except ImportError as error:
            raise InputError(
                f"{name}: needs {package}, which cannot be imported ({error}); "
                "pip install -r benchmarks/requirements.txt -c constraints.txt"
            ) from error
