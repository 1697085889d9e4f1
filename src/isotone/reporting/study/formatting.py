"""A run in words and figures: for tooltips, and as a row of CSV."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt

from isotone.reporting.study.families import category, corrected
from isotone.reporting.study.runs import StudyRun

Row = dict[str, Any]

_TOLD = {
    "edit": "edit",
    "correction": "correction",
    "layers": "layers",
    "matrices": "matrices",
    "setting": "K, seed",
    "damage": "times the unedited perplexity",
    "perplexity": "perplexity",
    "kl": "KL from unedited",
    "top1": "same top token",
    "spearman": "Spearman's rho of the codebook",
    "error": "relative error",
}
"""Of a run's tooltip."""


def told(run: StudyRun) -> Row:
    """A run's figures as text."""
    scaled = "" if run.at_error is None else f", scaled to error {run.at_error:g}"
    return {
        "edit": f"{run.variant}{scaled} ({category(run)})",
        "correction": corrected(run.correction),
        "layers": spans(run.layers),
        "matrices": ", ".join(run.types),
        "setting": f"{run.k}, {run.seed}",
        "damage": times(run.damage),
        "perplexity": shown(run.perplexity),
        "kl": "–" if run.kl is None else f"{run.kl:.4f}",
        "top1": "–" if run.top1_agreement is None else f"{run.top1_agreement:.1%}",
        "spearman": "–" if run.spearman is None else f"{run.spearman:.3f}",
        "error": f"{run.relative_error:.4g}",
    }


def tabled(run: StudyRun) -> Row:
    """A run's figures as a row of CSV; a collapsed model's are empty."""
    finite = run.perplexity < float("inf")
    return {
        "k": run.k,
        "protocol": run.protocol,
        "order": run.order,
        "layers": " ".join(map(str, run.layers)),
        "n_layers": len(run.layers),
        "types": " ".join(run.types),
        "edit": run.edit,
        "parameters": " ".join(f"{name}={value:g}" for name, value in run.parameters),
        "at_error": run.at_error,
        "correction": run.correction,
        "keeps": category(run),
        "seed": run.seed,
        "damage": run.damage if finite else None,
        "perplexity": run.perplexity if finite else None,
        "unedited_perplexity": run.unedited,
        "kl": run.kl,
        "top1_agreement": run.top1_agreement,
        "spearman": run.spearman,
        "relative_error": run.relative_error,
    }


def shown(value: float) -> str:
    """A perplexity with as many digits as mean something."""
    if value == float("inf"):
        return "not finite"
    if value >= 1e7:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def times(value: float) -> str:
    """A multiple likewise."""
    if value == float("inf"):
        return "not finite"
    if value >= 1e7:
        return f"{value:.1e}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 2 else 3
    return f"{value:,.{digits}f}"


def spans(numbers: Sequence[int]) -> str:
    """Numbers in ascending order, runs of three and more as first–last."""
    ordered = sorted(set(numbers))
    cuts = [i + 1 for i, (a, b) in enumerate(pairwise(ordered)) if b != a + 1]
    runs = [ordered[a:b] for a, b in pairwise([0, *cuts, len(ordered)])]
    return ", ".join(
        f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def tooltips() -> list[alt.Tooltip]:
    """Of a run."""
    return [alt.Tooltip(f"{key}:N", title=title) for key, title in _TOLD.items()]


def median_tooltips() -> list[alt.Tooltip]:
    """Of a median."""
    named = {"family": "", "group": "", "damage": "median damage", "n": "runs"}
    return [alt.Tooltip(f"{key}:N", title=title or key) for key, title in named.items()]
