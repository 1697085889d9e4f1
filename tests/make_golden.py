"""Writes tests/golden/v1 with the isotone of today. Refuses where it exists: a golden is for ever.

    python tests/make_golden.py

It holds the compressed directory, and `expected.safetensors`: the dense weights as the second
reader, which shares no code with isotone, decoded them on the day.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import second_reader
from checkpoints import Bf16, safetensors_bytes, weights, write_model
from isotone.pipeline.compress import compress

GOLDEN = Path(__file__).parent / "golden" / "v1"


def tensors():
    """Every dtype, both codings, a stack, protected weights, a tie, and some that are kept."""
    generator = np.random.default_rng(20)
    skewed = generator.choice(np.linspace(-1, 1, 200), 4_000, p=generator.dirichlet([0.03] * 200))
    embedding = Bf16(weights(48, 40, seed=21))
    return {
        "model.embed.weight": embedding,
        "model.0.skewed.weight": skewed.reshape(40, 100).astype("<f4"),
        "model.0.half.weight": weights(40, 30, seed=22).astype("<f2"),
        "model.0.experts.up": Bf16(weights(2, 20, 30, seed=23)),
        "model.norm.weight": Bf16(1 + weights(40, seed=24)),
        "model.positions": np.arange(10, dtype="<i8"),
        "lm_head.weight": embedding,
    }


def main():
    if GOLDEN.exists():
        sys.exit(
            f"{GOLDEN} exists; a golden is never made anew: give a changed format a new version"
        )
    config = {"model_type": "golden", "tie_word_embeddings": True}
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(
            Path(folder) / "model", tensors(), config=config, companions={"tokenizer.json": b"{}"}
        )
        compress(
            model,
            GOLDEN / "compressed",
            k=5,
            settings=["*.skewed.weight:k=200,protect=off", "*.half.weight:k=9,protect=0.01"],
        )
    dense = second_reader.read_directory(GOLDEN / "compressed")
    arrays = {name: patterns(tag, array) for name, (tag, array) in dense.items()}
    (GOLDEN / "expected.safetensors").write_bytes(safetensors_bytes(arrays))


def patterns(tag, array):
    """An array as `safetensors_bytes` takes it."""
    if tag != "BF16":
        return array
    wide = (array.astype("<u4") << 16).view("<f4")
    return Bf16(wide)


if __name__ == "__main__":
    main()
