"""The data-free formats that people use, beside isotone: bits and quality on SmolLM2's matrices.

Every linear matrix goes through a peer's own code, quantised and dequantised, and takes its place
in the dense model, rounded to bf16; embedding and norms stay. Quality comes from one pass beside
the dense model, as `isotone eval --reference` makes it: the whole text encoded once, the first 8
windows of 1,024 tokens, float32.

Bits are bytes: all that the peer stores for a matrix (codes, scales, zeros, tables), in the dtype
in which it stores them. llama.cpp is what `llama-quantize --pure` does: one type for every matrix,
and where its blocks do not fit the rows, the type that llama.cpp falls back to. Its mixtures
(Q4_K_M and so on), which give some matrices more bits, are not here; nor is what needs data.

SmolLM2 comes from a GGUF file in Q4_1: its weights lie on 16 even levels in every block of 32.
Q4_1 itself would give back the very same weights at 5 bits, and is left out for that; Q4_K, and to
a lesser degree HQQ and the blocks of 32, gain from it too. `--rotate 16` shows by how much: it
rotates the columns, so that a peer's blocks lie across those, and rotates them back afterwards.
"""

import argparse
import contextlib
import ctypes
import io
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import torch
from gguf import GGMLQuantizationType
from transformers import PreTrainedModel

from isotone.errors import InputError
from isotone.evaluation.divergence import divergence
from isotone.evaluation.perplexity import perplexity
from isotone.evaluation.scoring import compare
from isotone.models.model_files import check_context, load_model, open_files
from isotone.models.windows import BUILTIN, Tokens, cut_windows, encode, read_text
from results import print_table, write_results
from smollm2_dense import DEFAULT, smollm2_dense

CONTEXT = 1024

FALLBACKS = {"Q4_K": "Q5_0", "Q3_K": "Q4_0"}
"""For rows that are no multiple of 256: tensor_type_fallback in llama.cpp's llama-quant.cpp."""


@dataclass(frozen=True)
class RoundTrip:
    """A matrix after a peer: its weights [rows, columns] float32, and the bytes that it stores."""

    weight: torch.Tensor
    n_bytes: int


def nf4(weight: torch.Tensor, *, nested: bool) -> RoundTrip:
    """NF4 of bitsandbytes in blocks of 64 (QLoRA, arXiv 2305.14314); bytes of its state dict."""
    from bitsandbytes import functional

    codes, state = functional.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=nested
    )
    stored = [codes, *state.as_dict(packed=True).values()]
    return RoundTrip(functional.dequantize_4bit(codes, state), _n_bytes(stored))


def hqq(weight: torch.Tensor, *, bits: int) -> RoundTrip:
    """A layer of hqq with its own defaults, groups of 64 (Badri and Shaji 2023); its state dict."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    config = BaseQuantizeConfig(nbits=bits, group_size=64)
    layer = HQQLinear.from_weights(weight.clone(), None, config, device="cpu")
    return RoundTrip(layer.dequantize().float(), _n_bytes(layer.state_dict().values()))


def palettized(weight: torch.Tensor, *, bits: int) -> RoundTrip:
    """One k-means of coremltools for a whole matrix: packed indices, and a table in float16."""
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
    """A type of llama.cpp by name, without an importance matrix, or what it falls back to."""
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
    """llama.cpp's library of types, as the package libggml-python carries it."""
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
class Peer:
    """A format: its family, a key of FAMILIES, what makes the round trip, what its bytes are."""

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
PEERS = {
    "nf4": Peer("NF4", "NF4, block 64", partial(nf4, nested=False), _NF4),
    "nf4-nested": Peer("NF4", "NF4, double quantisation", partial(nf4, nested=True), _NESTED),
    "hqq4": Peer("HQQ", "HQQ 4-bit, group 64", partial(hqq, bits=4), _HQQ),
    "hqq3": Peer("HQQ", "HQQ 3-bit, group 64", partial(hqq, bits=3), _HQQ),
    "kmeans6": Peer("coremltools", "coremltools 6-bit", partial(palettized, bits=6), _TABLE),
    "kmeans4": Peer("coremltools", "coremltools 4-bit", partial(palettized, bits=4), _TABLE),
    "q4_0": Peer("llama.cpp", "Q4_0", partial(llama_cpp, name="Q4_0"), _PURE),
    "iq4_nl": Peer("llama.cpp", "IQ4_NL", partial(llama_cpp, name="IQ4_NL"), _PURE),
    "q4_k": Peer("llama.cpp", "Q4_K, else Q5_0", partial(llama_cpp, name="Q4_K"), _ELSE),
    "q3_k": Peer("llama.cpp", "Q3_K, else Q4_0", partial(llama_cpp, name="Q3_K"), _ELSE),
}


def measure(
    model_dir: Path,
    text: str | Path,
    windows: int = 8,
    context: int = 1024,
    names: Sequence[str] = tuple(PEERS),
    rotate: int = 0,
) -> list[dict[str, object]]:
    """Each named peer's bits and quality, with all `*_proj` matrices of the model in its format.

    text: a UTF-8 file, or `builtin`. rotate: by how many columns, while a matrix is with the peer.
    Seconds are those of both ways, on one core. Raises InputError for a name that is not in PEERS,
    for a package that is missing, and for a text that is too short.
    Cost: the peer's time and two forward passes a window; two float32 models in memory.
    """
    _check_installed(names)
    files = open_files(model_dir)
    check_context(files, context, f"context {context}")
    tokens = cut_windows(encode(files.tokenizer, read_text(text)), context, windows, str(text))
    if len(tokens) < windows:
        raise InputError(f"{text}: has only {len(tokens)} windows of {context} tokens")
    reference, model = load_model(files), load_model(files)
    return [_point(PEERS[name], model, reference, tokens, rotate) for name in names]


def _check_installed(names: Sequence[str]) -> None:
    for name in names:
        if name not in PEERS:
            raise InputError(f"{name}: no such peer; expected some of {', '.join(PEERS)}")
        package, module = FAMILIES[PEERS[name].family]
        try:
            import_module(module)
        except ImportError as error:
            raise InputError(
                f"{name}: needs {package}, which cannot be imported ({error}); "
                "pip install -r benchmarks/requirements.txt -c constraints.txt"
            ) from error


def _point(
    peer: Peer, model: PreTrainedModel, reference: PreTrainedModel, windows: Tokens, rotate: int
) -> dict[str, object]:
    """Put the peer's weights into the model, every matrix anew, and judge it."""
    n_weights = n_bytes = 0
    seconds = error = squares = 0.0
    for name, parameter in reference.named_parameters():
        if not name.endswith("_proj.weight"):
            continue
        before = parameter.detach().roll(rotate, 1)
        found, taken = _timed(peer, before)
        after = found.weight.bfloat16().float()
        model.get_parameter(name).data.copy_(after.roll(-rotate, 1))
        n_weights, n_bytes = n_weights + before.numel(), n_bytes + found.n_bytes
        seconds += taken
        exact = before.double()
        error += float((exact - after).square().sum())
        squares += float((exact - exact.mean()).square().sum())
    compared = compare(model, reference, windows)
    judged, beside = perplexity(compared.loss).perplexity, divergence(compared)
    return {
        "family": peer.family,
        "label": peer.label,
        "bits_per_weight": 8 * n_bytes / n_weights,
        "perplexity": judged.value,
        "perplexity_standard_error": judged.standard_error,
        "reference_perplexity": perplexity(compared.reference_loss).perplexity.value,
        "kl": beside.kl.value,
        "top1_agreement": beside.top1_agreement.value,
        "relative_distortion": error / squares,
        "seconds": seconds,
        "note": peer.note,
    }


def _timed(peer: Peer, weight: torch.Tensor) -> tuple[RoundTrip, float]:
    """A round trip and its seconds, on one core: most use no more, and small matrices gain none."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.monotonic()
    try:
        return peer.round_trip(weight), time.monotonic() - started
    finally:
        torch.set_num_threads(n_threads)


def _row(point: dict[str, object]) -> dict[str, str]:
    return {
        "": point["label"],
        "bits a weight": f"{point['bits_per_weight']:.3f}",
        "relative distortion": f"{point['relative_distortion']:.3e}",
        "perplexity": f"{point['perplexity']:,.2f}",
        "standard error": f"{point['perplexity_standard_error']:,.2f}",
        "KL to dense": f"{point['kl']:.3f}",
        "same top-1": f"{point['top1_agreement']:.1%}",
        "seconds": f"{point['seconds']:.1f}",
    }


def main() -> None:
    """Measure the peers; write the numbers down where it was all of them, as they are."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="made where it is not there")
    parser.add_argument("--text", default=BUILTIN, metavar="FILE")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=PEERS, metavar="NAME", default=tuple(PEERS))
    parser.add_argument("--rotate", type=int, default=0, metavar="COLUMNS")
    given = parser.parse_args()
    try:
        model = smollm2_dense(given.model)
        points = measure(model, given.text, given.windows, CONTEXT, given.only, given.rotate)
    except InputError as error:
        parser.error(str(error))
    text = Path(given.text).name
    rows = [_row(point) for point in points]
    print_table(
        f"{text}, {given.windows} windows of {CONTEXT:,} tokens, linear layers; dense: "
        f"perplexity {points[0]['reference_perplexity']:.2f}",
        list(rows[0]),
        [list(row.values()) for row in rows],
    )
    for point in points:
        print(f"{point['label']}: {point['note']}")
    if given.only == tuple(PEERS) and not given.rotate:
        protocol = {"text": text, "windows": given.windows, "context": CONTEXT, "dtype": "float32"}
        versions = {package: version(package) for package, _ in FAMILIES.values()}
        content = {"protocol": protocol, "peer_packages": versions, "points": points}
        write_results("round_trips", content)


if __name__ == "__main__":
    main()
