"""Made-up lines of runs.jsonl, of plausible shapes: for `isotone report`, without a model."""

from __future__ import annotations

import json
import math
import random

KEEPS = {
    "permute": ["values"],
    "reverse": ["values"],
    "to_spearman": ["values"],
    "permute_window": ["values"],
    "permute_within_sign": ["signs", "values"],
    "flip_signs": [],
    "gaussian_noise": [],
}
PROVENANCE = {
    "model": "SmolLM2",
    "model_hash": "ab" * 32,
    "text": "wikitext2-test.txt",
    "text_hash": "cd" * 32,
    "context": 512,
    "windows": 4,
    "clustering": {"protect": "off", "scale": "none", "include": ["model.layers.*"]},
    "dtype": "float32",
    "device": "cpu",
    "n_threads": 1,
    "isotone": "0.1.0",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "numpy": "2.4.6",
}
N_LAYERS = 30
BASE = 31.5


def unedited(k=64, perplexity=BASE):
    """The clustered model before any edit."""
    return {
        "kind": "unedited",
        "run": None,
        "keeps": ["order", "signs", "values"],
        **_measured(k, perplexity, growth=[1.0] * N_LAYERS, relative_error=0.0, spearman=1.0),
    }


def run(
    edit, perplexity, layers=(8,), *, k=64, growth=None, relative_error=0.5, spearman=None, **its
):
    """One edited run; further names are those of isotone.study.StudyRun."""
    kept = KEEPS.get(edit, ["order"])
    if spearman is None:
        spearman = 1.0 if "order" in kept else 0.1
    growth = [1.0] * N_LAYERS if growth is None else growth
    return {
        "kind": "edited",
        "run": {
            "grid": "grid",
            "protocol": "layer",
            "k": k,
            "layers": list(layers),
            "types": ["mlp.down_proj", "self_attn.q_proj"],
            "edit": edit,
            "parameters": {},
            "at_error": None,
            "correction": "moments",
            "order": None,
            "seed": 0,
            "until": None,
            "tasks": [],
            **its,
        },
        "keeps": kept,
        **_measured(k, perplexity, growth, relative_error, spearman),
    }


def _measured(k, perplexity, growth, relative_error, spearman):
    return {
        "k": k,
        "clustering_hash": f"clustering {k}",
        "n_matrices": 7,
        "n_weights": 3_500_000,
        "spearman": spearman,
        "kendall": spearman,
        "relative_error": relative_error,
        "cosine": 0.9,
        "mean_shift": 0.0,
        "scale": 1.0,
        "perplexity": perplexity,
        "loss": None if perplexity is None else math.log(perplexity),
        "kl": None if perplexity is None else abs(math.log(perplexity / BASE)),
        "top1_agreement": None if perplexity is None else 0.5,
        "n_tokens": 2044,
        "drift": {
            "rms": growth,
            "mean": [0.0] * len(growth),
            "growth": growth,
            "cosine": [None if value is None else 1 / max(value, 1 / value) for value in growth],
        },
        "tasks": {},
        "seconds": 2.5,
        "provenance": PROVENANCE,
    }


def times(edit, multiple, layer, **its):
    """A run on one layer, by its perplexity in times the unedited one; None for a collapse."""
    return run(edit, None if multiple is None else multiple * BASE, [layer], **its)


def replaced(multiples, **its):
    """A progressive replacement from the last layer; the RMS grows by a tenth with each layer."""
    for n, multiple in enumerate(multiples, 1):
        layers = list(range(N_LAYERS - n, N_LAYERS))[::-1]
        growth = [1.0] * (N_LAYERS - 1) + [None if multiple is None else 1 + n / 10]
        values = {"protocol": "progressive", "order": "last", "growth": growth, **its}
        yield run("sorted_normal", None if multiple is None else multiple * BASE, layers, **values)


def measured(*records):
    """The runs of some records, after that of the unedited model."""
    from isotone.reporting.study.runs import study_runs

    return study_runs([unedited(), *records])


def write(directory, records):
    """A directory of results."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) + "\n" for record in records]
    (directory / "runs.jsonl").write_text("".join(lines), "utf-8")
    return directory


def study(seed=0, sizes=(16, 64), layers=range(N_LAYERS), seeds=range(3)):
    """A whole study, every protocol in it."""
    rng = random.Random(seed)
    records = []
    for k in sizes:
        records += [unedited(k), *_alone(rng, k, layers, seeds), *_types(rng, k, seeds)]
        records += [*_doses(rng, k, seeds), *_errors(rng, k, seeds), *_replaced(rng, k, seeds)]
    return records


def _alone(rng, k, layers, seeds):
    for layer in layers:
        early = 6 * math.exp(-layer) + (0.3 if layer > 27 else 0)
        for seed in seeds:
            kept = BASE * (1.05 + early * rng.uniform(0.5, 1))
            its = {"layers": [layer], "k": k, "seed": seed}
            yield run("sorted_normal", kept, **its, relative_error=rng.uniform(0.2, 0.5))
            yield run("sorted_uniform", kept * 1.02, **its, relative_error=rng.uniform(0.3, 0.6))
            worse = BASE * 10 ** rng.uniform(0.5, 3.5)
            yield run("permute", worse, **its, relative_error=rng.uniform(1.2, 1.6))
            lost = BASE * 10 ** rng.uniform(4, 11)
            lost = None if rng.random() < 0.1 else lost
            yield run("sorted_normal", lost, **its, correction="none", relative_error=20.0)


def _types(rng, k, seeds):
    for index, name in enumerate(("q", "k", "v", "o")):
        for edit, times in (("sorted_normal", 1.1), ("permute", 40.0)):
            for seed in seeds:
                worse = BASE * times ** (1 + 0.4 * index * rng.random())
                its = {"layers": [8, 9, 10, 15, 22], "k": k, "seed": seed, "protocol": "type"}
                yield run(edit, worse, types=[f"self_attn.{name}_proj"], **its)


def _doses(rng, k, seeds):
    for layer in (1, 8, 22):
        for seed in seeds:
            for rho in (1, 0.99, 0.9, 0.7, 0.5, 0.2, 0, -0.5, -1):
                worse = BASE * 10 ** (
                    (1 - rho) ** 0.5 * (3.5 if layer == 1 else 2) * rng.uniform(0.8, 1.2)
                )
                its = {
                    "layers": [layer],
                    "k": k,
                    "seed": seed,
                    "relative_error": (2 - 2 * rho) ** 0.5 + 1e-3,
                }
                yield run("to_spearman", worse, **its, parameters={"rho": rho}, spearman=rho)
            for width in (2, 4, 16):
                rho = 1 - (width / 64) ** 2
                worse = BASE * 10 ** ((1 - rho) ** 0.5 * 3 * rng.uniform(0.8, 1.2))
                its = {
                    "layers": [layer],
                    "k": k,
                    "seed": seed,
                    "relative_error": (2 - 2 * rho) ** 0.5,
                }
                yield run("permute_window", worse, **its, parameters={"width": width}, spearman=rho)


def _errors(rng, k, seeds):
    slopes = {"sorted_normal": 0.4, "even_spacing": 0.6, "gaussian_noise": 0.8}
    slopes |= {"permute": 2.0, "permute_within_sign": 1.2, "flip_signs": 4.0}
    for layer in (1, 8, 22):
        for edit, slope in slopes.items():
            for error in (0.05, 0.1, 0.2, 0.4, 0.8):
                for seed in seeds:
                    worse = BASE * (
                        1 + slope * error**2 * rng.uniform(0.5, 2) * (20 if layer == 1 else 1)
                    )
                    its = {"layers": [layer], "k": k, "seed": seed, "at_error": error}
                    rho = 1.0 if edit.startswith("sorted") else 1 - error
                    yield run(edit, worse, **its, relative_error=error, spearman=rho)


def _replaced(rng, k, seeds):
    for order in ("first", "last", "random"):
        for correction in ("none", "moments", "least-squares"):
            for seed in seeds:
                layers, perplexity = list(range(N_LAYERS)), BASE
                if order == "last":
                    layers.reverse()
                if order == "random":
                    rng.shuffle(layers)
                for n in range(1, N_LAYERS + 1):
                    step = rng.uniform(1.3, 60) if correction == "none" else rng.uniform(1.05, 1.4)
                    perplexity *= step
                    touched = min(layers[:n])
                    pace = 1.5 if correction == "none" else 1.05
                    growth = [pace ** max(0, at - touched + 1) for at in range(N_LAYERS)]
                    collapsed = perplexity > 1e9
                    its = {"layers": layers[:n], "k": k, "seed": seed, "order": order}
                    its |= {"protocol": "progressive", "correction": correction, "until": 10.0}
                    yield run(
                        "sorted_normal",
                        None if collapsed else perplexity,
                        growth=[
                            None if collapsed and at > 20 else g for at, g in enumerate(growth)
                        ],
                        **its,
                    )
                    if perplexity > 10 * BASE:
                        break
