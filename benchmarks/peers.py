"""Measure time and distortion of isotone beside the k-means tools that people use.

Every matrix of SmolLM2-135M-Instruct (210 linear layers and the tied embedding) is clustered with
K = 16, in one run. isotone is the whole command, from the start of the process to an output that
has reached the disk: as plain k-means (no protection, no scales), with its defaults, and for a
size; the median of runs before and after the others. coremltools' PostTrainingPalettizer (4 bits,
per tensor, otherwise its defaults: fast mode, one worker, since starting more takes longer than
they save here) and scikit-learn's KMeans (one start, all cores) are timed on weights that are in
memory already, and write nothing.

Distortion is the sum of squared errors in float64, of each tool's own centroids and ranks; for
isotone it is that of its files as plain k-means, with float32 centroids.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

from inputs.smollm2_dense import DEFAULT, smollm2_dense
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.source.source import Source
from isotone.core.float_format import FloatFormat
from isotone.models.open_source import open_source
from measuring.command import Run, isotone
from measuring.tables import print_table, write_results
from stages import matrices

K, BITS = 16, 4
WORK = DEFAULT.with_name("peers")

PLAIN = ("--protect", "off", "--scale", "none")
RUNS: dict[str, tuple[str, ...]] = {
    "plain": ("--k", str(K), *PLAIN),
    "default": ("--k", str(K)),
    "bits": ("--bits", "3.6"),
}

Distortions = dict[str, float]
"""By tensor."""


def dense(source: Source, tensor: TensorInfo) -> np.ndarray:
    """The weights of a tensor, float32 in its shape."""
    float_format = FloatFormat(tensor.dtype)
    bits = source.read(tensor, 0, tensor.n_weights).view(float_format.bits_dtype)
    return float_format.upcast(bits).reshape(tensor.shape)


def squared_error(before: np.ndarray, after: np.ndarray) -> float:
    """The sum over all weights, in float64."""
    return float(np.square(before.astype(np.float64) - after.astype(np.float64)).sum())


def run_isotone(model: Path, tensors: list[TensorInfo], options: tuple[str, ...], out: Path) -> Run:
    """The whole command."""
    include = [argument for tensor in tensors for argument in ("--include", tensor.name)]
    whole = not include or len(tensors) == len(matrices(open_source(model), "*"))
    return isotone("compress", model, out, *options, *([] if whole else include))


def isotone_distortions(source: Source, directory: Path) -> Distortions:
    """From the ranks and the float32 codebooks in isotone's files."""
    opened = open_compressed(directory)
    by_name = {tensor.name: tensor for tensor in source.tensors}
    found = {}
    for record in opened.manifest.clustered:
        reader = opened.packed(record)
        codebook = opened.values(record, reader).codebook
        weights = dense(source, by_name[record.name]).reshape(-1)
        found[record.name] = sum(
            squared_error(weights[start:stop], codebook[reader.decode(chunk)])
            for chunk, _, start, stop in reader.spans()
        )
    return found


def run_coremltools(
    model: Path, source: Source, tensors: list[TensorInfo]
) -> tuple[float, Distortions]:
    """Seconds and distortions of PostTrainingPalettizer."""
    import torch
    from coremltools.optimize.torch.palettization import (
        PostTrainingPalettizer,
        PostTrainingPalettizerConfig,
    )
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    layer = {"n_bits": BITS, "granularity": "per_tensor"}
    # By name, so that the output layer, which repeats the embedding, is not done a second time.
    names = {tensor.name.removesuffix(".weight"): layer for tensor in tensors}
    config = PostTrainingPalettizerConfig.from_dict({"module_name_configs": names})
    started = time.monotonic()
    palettizer = PostTrainingPalettizer(network, config)
    palettized = palettizer.compress(inplace=True)
    seconds = time.monotonic() - started
    weights = palettized.state_dict()
    found = {}
    for tensor in tensors:
        after = weights[tensor.name].numpy()
        if len(np.unique(after)) > K:
            raise RuntimeError(f"coremltools left {tensor.name} as it was")
        found[tensor.name] = squared_error(dense(source, tensor), after)
    return seconds, found


def run_sklearn(source: Source, tensors: list[TensorInfo]) -> tuple[float, Distortions]:
    """Seconds and distortions of KMeans, one matrix after the other."""
    from sklearn.cluster import KMeans

    seconds, found = 0.0, {}
    for tensor in tensors:
        weights = dense(source, tensor).reshape(-1, 1)
        started = time.monotonic()
        fitted = KMeans(n_clusters=K, n_init=1, random_state=0).fit(weights)
        seconds += time.monotonic() - started
        after = fitted.cluster_centers_[fitted.labels_]
        found[tensor.name] = squared_error(weights, after)
    return seconds, found


def _time_isotone(model: Path, tensors: list[TensorInfo], n_runs: int) -> dict[str, list[float]]:
    """Seconds of the whole command, each of RUNS in turn; leaves the last outputs in WORK."""
    seconds: dict[str, list[float]] = {name: [] for name in RUNS}
    for _ in range(n_runs):
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        for name, taken in seconds.items():
            taken.append(run_isotone(model, tensors, RUNS[name], WORK / name).seconds)
    return seconds


def _row(tool: str, seconds: float, ours: float, distortions: Distortions | None) -> list[str]:
    """A row of the table, short of how distortions compare."""
    total = "" if distortions is None else f"{sum(distortions.values()):.2f}"
    return [tool, f"{seconds:.2f}", f"{seconds / ours:.1f}", total]


def _compared(ours: Distortions, theirs: Distortions) -> list[str]:
    """On how many matrices ours is at or below theirs; the median and the worst ratio."""
    ratios = [ours[name] / theirs[name] for name in ours]
    n_not_above = sum(ratio <= 1.0 for ratio in ratios)
    return [f"{n_not_above} of {len(ours)}", f"{np.median(ratios):.9f}", f"{max(ratios):.9f}"]


def main() -> None:
    """Run every tool and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="made where it is not there")
    parser.add_argument("--quick", type=int, metavar="N", help="N matrices only, to try the script")
    given = parser.parse_args()
    model = smollm2_dense(given.model)
    source = open_source(model)
    tensors = matrices(source, "*")[-(given.quick or 0) :]

    before = _time_isotone(model, tensors, 2)
    ours = isotone_distortions(source, WORK / "plain")
    peers = {
        "coremltools": run_coremltools(model, source, tensors),
        "scikit-learn": run_sklearn(source, tensors),
    }
    after = _time_isotone(model, tensors, 3)
    shutil.rmtree(WORK)

    runs = {name: before[name] + after[name] for name in before}
    medians = {name: float(np.median(taken)) for name, taken in runs.items()}
    rows = [
        _row("isotone, plain k-means", medians["plain"], medians["plain"], ours),
        _row("isotone, default", medians["default"], medians["plain"], None),
        _row("isotone, --bits 3.6", medians["bits"], medians["plain"], None),
    ]
    for tool, (seconds, found) in peers.items():
        rows.append([*_row(tool, seconds, medians["plain"], found), *_compared(ours, found)])
    print_table(
        f"{len(tensors)} matrices, K = {K}; ratio: isotone's distortion by the tool's",
        ("", "seconds", "by isotone's", "distortion", "at most 1", "median ratio", "worst ratio"),
        [[*row, *[""] * (7 - len(row))] for row in rows],
    )
    if given.quick is None:
        content = {
            "k": K,
            "isotone_seconds": runs,
            "peer_seconds": {tool: seconds for tool, (seconds, _) in peers.items()},
            "distortions": {"isotone": ours} | {tool: found for tool, (_, found) in peers.items()},
        }
        write_results("peers", content)


if __name__ == "__main__":
    main()
