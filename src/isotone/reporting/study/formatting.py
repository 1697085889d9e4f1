"""A run in words and figures: for tooltips, and as a row of CSV."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt

from isotone.reporting.study.families import category, correction_text
from isotone.reporting.study.runs import MeasuredRun

Row = dict[str, Any]

_TOOLTIP_TITLES = {
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
"""The keys of a tooltip, and what they are called there."""


def tooltip_row(run: MeasuredRun) -> Row:
    """Return the figures of a run as text.

    Parameters
    ----------
    run : MeasuredRun
        The run.

    Returns
    -------
    dict of str to str
        The texts by the keys of the tooltip.
    """
    scaled = "" if run.at_error is None else f", scaled to error {run.at_error:g}"
    return {
        "edit": f"{run.variant}{scaled} ({category(run)})",
        "correction": correction_text(run.correction),
        "layers": spans(run.layers),
        "matrices": ", ".join(run.types),
        "setting": f"{run.k}, {run.seed}",
        "damage": ratio_text(run.perplexity_ratio),
        "perplexity": perplexity_text(run.perplexity),
        "kl": "–" if run.kl is None else f"{run.kl:.4f}",
        "top1": "–" if run.top1_agreement is None else f"{run.top1_agreement:.1%}",
        "spearman": "–" if run.spearman is None else f"{run.spearman:.3f}",
        "error": f"{run.relative_error:.4g}",
    }


def csv_row(run: MeasuredRun) -> Row:
    """Return the figures of a run as a row of CSV.

    Parameters
    ----------
    run : MeasuredRun
        The run.

    Returns
    -------
    dict
        The figures; None for those of a collapsed model.
    """
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
        "damage": run.perplexity_ratio if finite else None,
        "perplexity": run.perplexity if finite else None,
        "unedited_perplexity": run.unedited,
        "kl": run.kl,
        "top1_agreement": run.top1_agreement,
        "spearman": run.spearman,
        "relative_error": run.relative_error,
    }


def perplexity_text(value: float) -> str:
    """Return a perplexity with as many digits as mean something.

    Parameters
    ----------
    value : float
        The perplexity, or infinity.

    Returns
    -------
    str
        The text.
    """
    if value == float("inf"):
        return "not finite"
    if value >= 1e7:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def ratio_text(value: float) -> str:
    """Return a multiple with as many digits as mean something.

    Parameters
    ----------
    value : float
        The multiple, or infinity.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> ratio_text(1.0625), ratio_text(40.0), ratio_text(5000.0)
    ('1.062', '40.0', '5,000')
    """
    if value == float("inf"):
        return "not finite"
    if value >= 1e7:
        return f"{value:.1e}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 2 else 3
    return f"{value:,.{digits}f}"


def spans(numbers: Sequence[int]) -> str:
    """Return numbers in ascending order, three and more in a row as first–last.

    Parameters
    ----------
    numbers : sequence of int
        The numbers.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> spans([1, 2, 3, 7])
    '1–3, 7'
    """
    ordered = sorted(set(numbers))
    cuts = [i + 1 for i, (a, b) in enumerate(pairwise(ordered)) if b != a + 1]
    runs = [ordered[a:b] for a, b in pairwise([0, *cuts, len(ordered)])]
    return ", ".join(
        f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def run_tooltips() -> list[alt.Tooltip]:
    """Return the tooltip of a run."""
    return [alt.Tooltip(f"{key}:N", title=title) for key, title in _TOOLTIP_TITLES.items()]


def median_tooltips() -> list[alt.Tooltip]:
    """Return the tooltip of a median."""
    named = {"family": "", "group": "", "damage": "median damage", "n": "runs"}
    return [alt.Tooltip(f"{key}:N", title=title or key) for key, title in named.items()]
