"""Writes tests/golden/v2 with the isotone of today. Refuses where it exists: a golden is for ever.

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

GOLDEN = Path(__file__).parent / "golden" / "v2"


def tensors():
    """Every dtype, both codings, a stack, factors, protected weights, a tie, and some kept."""
    generator = np.random.default_rng(20)
    skewed = generator.choice(np.linspace(-1, 1, 200), 6_000, p=generator.dirichlet([0.03] * 200))
    embedding = weights(60, 80, seed=21) * np.exp2(generator.normal(0, 1, 80))
    embedding[::20, 7] = [3.0, -2.5, 40.0]
    rows = weights(50, 70, seed=22) * np.exp2(generator.normal(0, 1, (50, 1)))
    experts = weights(2, 20, 30, seed=23) * np.exp2(generator.normal(0, 1, (2, 1, 30)))
    return {
        "model.embed.weight": Bf16(embedding),
        "model.0.skewed.weight": skewed.reshape(60, 100).astype("<f4"),
        "model.0.half.weight": rows.astype("<f2"),
        "model.0.experts.up": Bf16(experts),
        "model.norm.weight": Bf16(1 + weights(40, seed=24)),
        "model.positions": np.arange(10, dtype="<i8"),
        "lm_head.weight": Bf16(embedding),
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
            bits=3.5,
            scale="both",
            settings=[
                "*.skewed.weight:scale=none,protect=off",
                "*.half.weight:scale=row,k=9",
                "*.experts.up:k=16",
            ],
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
