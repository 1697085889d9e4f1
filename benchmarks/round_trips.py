"""Measure the data-free formats that people use, beside isotone: bits and quality on SmolLM2.

Every linear matrix makes its round trip through a baseline's own code (baselines/formats.py) and
takes its place in the dense model, rounded to bf16; embedding and norms stay. Quality comes from
one pass beside the dense model, as `isotone eval --reference` makes it: the whole text encoded
once, the first 8 windows of 1,024 tokens, float32.

SmolLM2 comes from a GGUF file in Q4_1: its weights lie on 16 even levels in every block of 32.
Q4_1 itself would give back the very same weights at 5 bits, and is left out for that reason; Q4_K,
and to a lesser degree HQQ and the blocks of 32, gain from it too. `--rotate 16` shows by how much:
it rotates the columns, so that a baseline's blocks lie across those of the source, and rotates them
back afterwards.
"""

import argparse
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import PreTrainedModel

from baselines.formats import BASELINES, FAMILIES, Baseline, RoundTrip, check_installed
from inputs.smollm2_dense import DEFAULT, smollm2_dense
from isotone.errors import InputError
from isotone.evaluation.metrics import divergence, perplexity
from isotone.evaluation.scoring import compare
from isotone.models.language_model.checks import check_context
from isotone.models.language_model.files import open_files
from isotone.models.language_model.load import load_model
from isotone.models.prefix import find_prefix
from isotone.models.text import BUILTIN, Tokens, cut_windows, encode, read_text
from measuring.tables import print_table, write_results

CONTEXT = 1024


def measure(
    model_dir: Path,
    text: str | Path,
    windows: int = 8,
    context: int = 1024,
    names: Sequence[str] = tuple(BASELINES),
    rotate: int = 0,
) -> list[dict[str, object]]:
    """Measure bits and quality of each named baseline, with all `*_proj` matrices in its format.

    text: a UTF-8 file, or `builtin`. rotate: the number of columns by which a matrix is rotated for
    its round trip. Seconds are those of quantising and dequantising, on one core. Raises InputError
    if a name is not in BASELINES, a package is missing, or the text is too short. The cost is the
    baseline's time and two forward passes a window; two float32 models are in memory.
    """
    check_installed(names)
    files = open_files(model_dir)
    check_context(files, context, f"context {context}")
    encoded, prefix = encode(files.tokenizer, read_text(text)), find_prefix(files).tokens
    tokens = cut_windows(encoded, context, windows, str(text), prefix)
    if len(tokens) < windows:
        raise InputError(f"{text}: has only {len(tokens)} windows of {context} tokens")
    reference, model = load_model(files), load_model(files)
    given = (model, reference, tokens, len(prefix), rotate)
    return [_point(BASELINES[name], *given) for name in names]


def _point(
    baseline: Baseline,
    model: PreTrainedModel,
    reference: PreTrainedModel,
    windows: Tokens,
    n_prefix: int,
    rotate: int,
) -> dict[str, object]:
    """Put the baseline's weights into the model, every matrix anew, and judge it."""
    n_weights = n_bytes = 0
    seconds = error = squares = 0.0
    for name, parameter in reference.named_parameters():
        if not name.endswith("_proj.weight"):
            continue
        before = parameter.detach().roll(rotate, 1)
        found, taken = _timed(baseline, before)
        after = found.weight.bfloat16().float()
        model.get_parameter(name).data.copy_(after.roll(-rotate, 1))
        n_weights, n_bytes = n_weights + before.numel(), n_bytes + found.n_bytes
        seconds += taken
        exact = before.double()
        error += float((exact - after).square().sum())
        squares += float((exact - exact.mean()).square().sum())
    compared = compare(model, reference, windows, n_prefix=n_prefix)
    judged, beside = perplexity(compared.loss).perplexity, divergence(compared)
    return {
        "family": baseline.family,
        "label": baseline.label,
        "bits_per_weight": 8 * n_bytes / n_weights,
        "perplexity": judged.value,
        "perplexity_standard_error": judged.standard_error,
        "reference_perplexity": perplexity(compared.reference_loss).perplexity.value,
        "kl": beside.kl.value,
        "top1_agreement": beside.top1_agreement.value,
        "relative_distortion": error / squares,
        "seconds": seconds,
        "note": baseline.note,
    }


def _timed(baseline: Baseline, weight: torch.Tensor) -> tuple[RoundTrip, float]:
    """A round trip and its seconds, on one core: most use no more, and small matrices gain none."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.monotonic()
    try:
        return baseline.round_trip(weight), time.monotonic() - started
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
    """Measure the baselines; write the numbers down if all were measured, without rotation."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="made where it is not there")
    parser.add_argument("--text", default=BUILTIN, metavar="FILE")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument(
        "--only", nargs="+", choices=BASELINES, metavar="NAME", default=tuple(BASELINES)
    )
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
    if given.only == tuple(BASELINES) and not given.rotate:
        protocol = {"text": text, "windows": given.windows, "context": CONTEXT, "dtype": "float32"}
        versions = {package: version(package) for package, _ in FAMILIES.values()}
        content = {"protocol": protocol, "peer_packages": versions, "points": points}
        write_results("round_trips", content)


if __name__ == "__main__":
    main()
