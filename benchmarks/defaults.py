"""Measure what each default is worth on three kinds of weights: the damage to a model without it.

SmolLM2 is judged by the divergence of its predictions (KL to the dense model), all-MiniLM by the
mean of 1 - cosine of its sentence embeddings. The third is SmolLM2 with shaken channels
(inputs/shaken.py): the same function, but the scales of rows and columns differ 2 to 30 times.

Each method is run with its defaults, and with one of them changed at a time. Where K decides, sizes
differ a little, so damage is also given at the size of the default: one more bit a weight lowers
the squared error, and with it a small damage, to a quarter.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

import isotone
from inputs.minilm_dense import embeddings, minilm_dense, sentences_of
from inputs.shaken import shaken
from inputs.smollm2_dense import DEFAULT, smollm2_dense
from isotone.evaluation.run import evaluate
from isotone.models.text import BUILTIN, read_text
from measuring.tables import print_table, write_results

WORK = DEFAULT.with_name("defaults")
CHANGES = {
    "--bits 3.6": {"bits": 3.6},
    "--bits 3.6 --scale none": {"bits": 3.6, "scale": "none"},
    "--bits 3.6 --scale row": {"bits": 3.6, "scale": "row"},
    "--bits 3.6 --scale both": {"bits": 3.6, "scale": "both"},
    "--bits 3.6 --protect off": {"bits": 3.6, "protect": "off"},
    "--k 16": {"k": 16},
    "--k 16 --scale none": {"k": 16, "scale": "none"},
    "--k 16 --scale row": {"k": 16, "scale": "row"},
    "--k 16 --protect off": {"k": 16, "protect": "off"},
    "--k 16 --protect off --scale none": {"k": 16, "protect": "off", "scale": "none"},
}


def measure(model: Path, label: str, options: dict, damage: Callable[[Path], float]) -> dict:
    """One way to compress a model: what it takes, and what it does."""
    out = WORK / "out"
    summary = isotone.compress(model, out, exclude=["*embed*"], overwrite=True, **options)
    found = damage(out)
    shutil.rmtree(out)
    return {
        "options": label,
        "bits_per_weight": summary.bits_per_weight,
        "n_protected": summary.n_protected,
        "damage": found,
    }


def kinds(text: str, windows: int) -> dict[str, tuple[Path, Callable[[Path], float]]]:
    """The models, each with its measure of damage."""
    smollm2 = smollm2_dense()
    minilm = minilm_dense()
    sentences = sentences_of(read_text(text))
    expected = embeddings(minilm, sentences)

    def divergence(model: Path) -> float:
        return evaluate(model, text, windows=windows, reference=smollm2).kl

    def angle(model: Path) -> float:
        dense = WORK / "dense"
        isotone.decompress(model, dense, overwrite=True)
        return float((1.0 - (embeddings(dense, sentences) * expected).sum(-1)).mean())

    return {
        "SmolLM2, KL": (smollm2, divergence),
        "SmolLM2 with shaken channels, KL": (shaken(smollm2, WORK / "shaken"), divergence),
        "all-MiniLM-L6-v2, 1 - cosine": (minilm, angle),
    }


def main() -> None:
    """Measure every change on every kind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", default=BUILTIN, metavar="FILE")
    parser.add_argument("--windows", type=int, default=2)
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    results = {}
    for kind, (model, damage) in kinds(given.text, given.windows).items():
        points = [measure(model, label, options, damage) for label, options in CHANGES.items()]
        results[kind] = points
        size = {"--bits": points[0]["bits_per_weight"], "--k": points[5]["bits_per_weight"]}
        rows = []
        for point in points:
            more = point["bits_per_weight"] - size[point["options"].split()[0]]
            rows.append(
                (
                    point["options"],
                    f"{point['bits_per_weight']:.3f}",
                    f"{point['n_protected']:,}",
                    f"{point['damage']:.4f}",
                    f"{point['damage'] * 4.0**more:.4f}",
                )
            )
        columns = ("", "bits a weight", "protected", "damage", "damage at the default's size")
        print_table(kind, columns, rows)
    protocol = {"text": Path(given.text).name, "windows": given.windows, "context": 1024}
    write_results("defaults", {"protocol": protocol, "kinds": results})


if __name__ == "__main__":
    main()
