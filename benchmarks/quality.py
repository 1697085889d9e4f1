"""What clustering costs in quality: perplexity and measured bits of SmolLM2, linear layers only.

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
VARIANTS = ((64, "auto"), (32, "auto"), (16, "auto"), (16, "off"))


@dataclass(frozen=True)
class Point:
    """One model: what it takes and what it is worth. k and protect are None for the dense one."""

    k: int | None
    protect: str | None
    bits_per_weight: float
    relative_distortion: float
    perplexity: float
    perplexity_standard_error: float


def dense_point(model: Path, text: str, windows: int) -> Point:
    """The model as it came."""
    return Point(None, None, 16.0, 0.0, *_perplexity(model, text, windows))


def clustered_point(model: Path, k: int, protect: str, text: str, windows: int) -> Point:
    """The model after compress and decompress, embedding kept as it is."""
    packed, dense = WORK / f"k{k}-{protect}", WORK / f"k{k}-{protect}-dense"
    options = ("--k", k, "--protect", protect, "--exclude", "*embed_tokens*", "--overwrite")
    summary = isotone("compress", model, packed, *options).output
    isotone("decompress", packed, dense, "--overwrite")
    perplexity = _perplexity(dense, text, windows)
    shutil.rmtree(packed)
    shutil.rmtree(dense)
    return Point(
        k, protect, summary["bits_per_weight"], summary["relative_distortion"], *perplexity
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
    given = parser.parse_args()
    model = smollm2_dense(given.model)
    points = [dense_point(model, given.text, given.windows)]
    for k, protect in VARIANTS:
        points.append(clustered_point(model, k, protect, given.text, given.windows))
    shutil.rmtree(WORK)
    name = Path(given.text).name
    print_table(
        f"{name}, {given.windows} windows of 1,024 tokens, linear layers clustered",
        ("", "bits a weight", "relative distortion", "perplexity", "standard error"),
        [
            (
                f"K = {p.k}, protect {p.protect}" if p.k else "dense",
                f"{p.bits_per_weight:.3f}",
                f"{p.relative_distortion:.3e}",
                f"{p.perplexity:,.2f}",
                f"{p.perplexity_standard_error:,.2f}",
            )
            for p in points
        ],
    )
    protocol = {"text": name, "windows": given.windows, "context": 1024, "dtype": "float32"}
    write_results("quality", {"protocol": protocol, "points": [vars(p) for p in points]})


if __name__ == "__main__":
    main()
