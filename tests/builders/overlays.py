"""New values for a directory, and the directories that hold them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay
from isotone.checkpoint.overlay.write import write_overlay
from isotone.checkpoint.staging.open import open_staging
from isotone.core.scales.codes import decode_scales
from isotone.pipeline.compress import compress
from tests.builders.checkpoints import Bf16, tree, weights, write_model, write_tree


def write(base, out, overlays, by=write_overlay, **options):
    """The directory OUT over (or instead of) the one at base."""
    opened = open_compressed(base)
    with open_staging(out, {}, overwrite=False) as staging:
        by(opened, overlays, staging, {"test": {"n": 1}}, **options)
        staging.publish()
    return out


def values_of(directory, name):
    """A tensor without its assignments."""
    opened = open_compressed(directory)
    record = next(r for r in opened.manifest.clustered if r.name == name)
    return opened.values(record, opened.packed(record))


def moved(tensor, by=0.03):
    """Another codebook that ascends: each centroid a little elsewhere."""
    steps = np.random.default_rng(7).uniform(0.2, 1.0, tensor.codebook.shape)
    codebook = tensor.codebook + by * np.cumsum(steps, axis=-1).astype(np.float32)
    return codebook.astype(np.float32)


def every_overlay(directory):
    """New codebooks for all clustered tensors, new scales where there are any, a norm."""
    opened = open_compressed(directory)
    overlays = []
    for record in opened.manifest.clustered:
        tensor = opened.values(record, opened.packed(record))
        row, column = tensor.row_scale, tensor.column_scale
        overlays.append(
            TensorOverlay(
                record.name,
                moved(tensor),
                None if row is None else (decode_scales(row) * np.float32(1.1)).astype(np.float16),
                None if column is None else decode_scales(column)[..., ::-1],
            )
        )
    for record in opened.manifest.kept:
        if "norm" in record.name:
            data = np.arange(record.dense_bytes, dtype=np.uint8).tobytes()
            overlays.append(TensorOverlay(record.name, kept=data))
    return overlays


def make_pair(root):
    """A small model, its clustered form (base), and a codebook-only directory over it (healed)."""
    stretch = np.exp2(np.random.default_rng(5).normal(0, 1, (40, 1)))
    tensors = {
        "a.weight": Bf16(weights(40, 40, seed=1) * stretch),
        "b.experts": weights(2, 8, 9, seed=2).astype("<f2"),
        "c.weight": weights(30, 30, seed=3),
        "norm.weight": Bf16(weights(24)),
        "steps": np.arange(3),
    }
    model = write_model(root / "model", tensors, config={}, companions={"LICENSE": b"free"})
    write_tree(model, {"chat/template.jinja": b"{}"})
    settings = ["a.weight:scale=both", "c.weight:protect=off"]
    compress(model, root / "base", k=3, protect="0.01", scale="none", settings=settings)
    overlays = [overlay for overlay in every_overlay(root / "base") if overlay.name != "c.weight"]
    write(root / "base", root / "healed", overlays)
    return SimpleNamespace(
        tensors=tensors,
        model=model,
        base=root / "base",
        healed=root / "healed",
        overlays=overlays,
    )


def copy_pair(pair, root):
    """A copy of both directories."""
    for name in ("base", "healed"):
        write_tree(root / name, tree(getattr(pair, name)))
    return SimpleNamespace(base=root / "base", healed=root / "healed")
