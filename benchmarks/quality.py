"""What clustering costs in quality: perplexity and measured bits of SmolLM2, linear layers only.

K-means with its defaults and plain (no protected weights, no factors of rows and columns), and
sizes asked for by --bits, which is the method entropy.

The protocol is that of `isotone eval`: the whole text encoded once, the first 8 windows of 1,024
tokens, float32. The text is given with --text, by default what every Python ships; perplexities
of different texts are not to be compared.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from command import isotone
from isotone.evaluate.run import evaluate
from isotone.evaluate.windows import BUILTIN
from results import print_table, write_results
from smollm2_dense import DEFAULT, smollm2_dense

WORK = DEFAULT.with_name("quality")
PLAIN = ("--protect", "off", "--scale", "none")
VARIANTS: dict[str, tuple[object, ...]] = {
    "K = 64": ("--k", 64),
    "K = 32": ("--k", 32),
    "K = 16": ("--k", 16),
    "K = 16, plain": ("--k", 16, *PLAIN),
} | {f"{bits} bits": ("--bits", bits) for bits in (5.0, 4.1, 3.9, 3.65, 3.1)}


@dataclass(frozen=True)
class Point:
    """One model: what it takes and what it is worth. method: kmeans, entropy, none where dense."""

    name: str
    method: str
    options: str
    bits_per_weight: float
    relative_distortion: float
    perplexity: float
    perplexity_standard_error: float


def dense_point(model: Path, text: str, windows: int) -> Point:
    """The model as it came."""
    return Point("dense", "none", "", 16.0, 0.0, *_perplexity(model, text, windows))


def clustered_point(model: Path, name: str, text: str, windows: int) -> Point:
    """The model after compress and decompress, embedding kept as it is."""
    options = VARIANTS[name]
    packed, dense = WORK / "packed", WORK / "dense"
    keep = ("--exclude", "*embed_tokens*", "--overwrite")
    summary = isotone("compress", model, packed, *options, *keep).output
    isotone("decompress", packed, dense, "--overwrite")
    perplexity = _perplexity(dense, text, windows)
    shutil.rmtree(packed)
    shutil.rmtree(dense)
    return Point(
        name,
        "entropy" if "--bits" in options else "kmeans",
        " ".join(map(str, options)),
        summary["bits_per_weight"],
        summary["relative_distortion"],
        *perplexity,
    )


def _perplexity(model: Path, text: str, windows: int) -> tuple[float, float]:
    found = evaluate(model, text, windows=windows)
    if found.n_windows != windows:
        raise ValueError(f"{text} has only {found.n_windows} windows")
    return found.perplexity, found.perplexity_standard_error


def main() -> None:
    """Measure the dense model and each variant."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="made where it is not there")
    parser.add_argument("--text", default=BUILTIN, metavar="FILE")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="some, to try the script")
    given = parser.parse_args()
    model = smollm2_dense(given.model)
    points = [dense_point(model, given.text, given.windows)]
    for variant in given.only or VARIANTS:
        points.append(clustered_point(model, variant, given.text, given.windows))
    shutil.rmtree(WORK)
    name = Path(given.text).name
    print_table(
        f"{name}, {given.windows} windows of 1,024 tokens, linear layers clustered",
        ("", "method", "bits a weight", "relative distortion", "perplexity", "standard error"),
        [
            (
                p.name,
                p.method,
                f"{p.bits_per_weight:.3f}",
                f"{p.relative_distortion:.3e}",
                f"{p.perplexity:,.2f}",
                f"{p.perplexity_standard_error:,.2f}",
            )
            for p in points
        ],
    )
    if given.only:
        return
    protocol = {"text": name, "windows": given.windows, "context": 1024, "dtype": "float32"}
    write_results("quality", {"protocol": protocol, "points": [vars(p) for p in points]})


if __name__ == "__main__":
    main()
