"""Writes tests/golden/v3 with the isotone of today. Refuses where it exists: a golden is for ever.

    python -m tests.builders.make_golden

It holds a compressed directory, a codebook-only one over it, a complete one of the same values, and
`expected.safetensors`: the dense weights of these as the second reader, which shares no code with
isotone, decoded them on the day.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay
from isotone.checkpoint.overlay.write import write_complete, write_overlay
from isotone.checkpoint.staging.open import open_staging
from isotone.core.scales.codes import decode_scales
from isotone.pipeline.compress import compress
from tests.builders import second_reader
from tests.builders.checkpoints import Bf16, safetensors_bytes, weights, write_model

GOLDEN = Path(__file__).parents[1] / "golden" / "v3"


def tensors():
    """Every dtype, both codings, a stack, scales, protected weights, a tie, and some kept."""
    generator = np.random.default_rng(30)
    skewed = generator.choice(np.linspace(-1, 1, 90), 2_400, p=generator.dirichlet([0.03] * 90))
    embedding = weights(40, 60, seed=31) * np.exp2(generator.normal(0, 1, 60))
    embedding[::20, 7] = [3.0, 40.0]
    rows = weights(30, 70, seed=32) * np.exp2(generator.normal(0, 1, (30, 1)))
    experts = weights(2, 20, 30, seed=33) * np.exp2(generator.normal(0, 1, (2, 1, 30)))
    return {
        "model.embed.weight": Bf16(embedding),
        "model.0.skewed.weight": skewed.reshape(40, 60).astype("<f4"),
        "model.0.half.weight": rows.astype("<f2"),
        "model.0.experts.up": Bf16(experts),
        "model.norm.weight": Bf16(1 + weights(40, seed=34)),
        "model.positions": np.arange(10, dtype="<i8"),
        "lm_head.weight": Bf16(embedding),
    }


def overlays(base):
    """Codebooks of three tensors, one of them a stack; scales of either width; a norm."""
    values = {r.name: base.values(r, base.packed(r)) for r in base.manifest.clustered}
    embedding, half = values["model.embed.weight"], values["model.0.half.weight"]
    experts = values["model.0.experts.up"]
    scales = decode_scales(embedding.row_scale) * np.linspace(0.9, 1.1, 40, dtype=np.float32)
    return [
        TensorOverlay("model.embed.weight", spread(embedding), row_scale=scales.astype("<f2")),
        TensorOverlay(
            "model.0.half.weight", row_scale=decode_scales(half.row_scale) * np.float32(1.01)
        ),
        TensorOverlay(
            "model.0.experts.up", spread(experts), column_scale=experts.column_scale[:, ::-1]
        ),
        TensorOverlay("model.norm.weight", kept=Bf16(1 + weights(40, seed=35)).patterns.tobytes()),
    ]


def spread(tensor):
    """Another ascending codebook."""
    return (tensor.codebook * np.float32(1.07) + np.float32(0.003)).astype(np.float32)


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
            GOLDEN / "base",
            bits=3.5,
            scale="both",
            settings=[
                "*.skewed.weight:scale=none,protect=off",
                "*.half.weight:scale=row,k=9",
                "*.experts.up:k=16",
            ],
        )
    base = open_compressed(GOLDEN / "base")
    for name, write in (("codebooks", write_overlay), ("complete", write_complete)):
        with open_staging(GOLDEN / name, {}, overwrite=False) as staging:
            write(base, overlays(base), staging, {"golden": {"seed": 35}})
            staging.publish()
    dense = second_reader.read_directory(GOLDEN / "codebooks")
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
