"""The page of a study: what was measured, what it says of the paper's claims, and the charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from isotone.reporting.findings.claims import claims
from isotone.reporting.findings.equal_error import TOLERANCE, equal_errors, missed_error
from isotone.reporting.findings.survival import ORDERS, growth_text, survivals
from isotone.reporting.page import Page, Table
from isotone.reporting.study.charts.collapse import collapse_figure
from isotone.reporting.study.charts.dose import dose_figure
from isotone.reporting.study.charts.drift import drift_figure
from isotone.reporting.study.charts.error import error_figure
from isotone.reporting.study.charts.order import order_figure
from isotone.reporting.study.charts.sensitivity import sensitivity_figure
from isotone.reporting.study.charts.types import types_figure
from isotone.reporting.study.families import CATEGORIES, correction_text
from isotone.reporting.study.formatting import ratio_text
from isotone.reporting.study.runs import JsonRecord, MeasuredRun, edited, study_runs

_PAPER = "arXiv 2603.17917, Only relative ranks matter in weight-clustered large language models"

_FIGURES = {
    "sensitivity": (sensitivity_figure, "no run edits a single layer"),
    "order": (order_figure, "no run edits a single layer"),
    "types": (types_figure, "no run edits a single matrix type"),
    "dose": (dose_figure, "no edit broke the order by degrees"),
    "collapse": (collapse_figure, "no layers were replaced one after another"),
    "drift": (drift_figure, "no layers were replaced one after another"),
    "error": (error_figure, "no run edits a single layer"),
}
"""Every chart by name, and why it may be missing."""


def study_page(records: Sequence[JsonRecord], *, title: str | None, command: str) -> Page:
    """Return everything that the records of a study say, on one page.

    Parameters
    ----------
    records : sequence of dict
        The lines of runs.jsonl.
    title : str or None
        The title; None takes one from the model.
    command : str
        The command that makes the page again.

    Returns
    -------
    Page
        The page.
    """
    runs = study_runs(records)
    drawn = {name: draw(runs) for name, (draw, _) in _FIGURES.items()}
    missing = [name for name, figure in drawn.items() if figure is None]
    left_out = [f"No chart {name}: {_FIGURES[name][1]}." for name in missing]
    n_alone = len(edited(records)) - len(runs)
    if n_alone:
        left_out.append(
            f"{n_alone} runs, whose clustering has no finite perplexity unedited: nothing to "
            "compare them with."
        )
    return Page(
        title=title or f"{_model(records)}: what is the order of its weights worth?",
        facts=_facts(records, runs),
        tables=[_claims_table(runs), *_survival_table(runs), *_error_table(runs)],
        figures=[figure for figure in drawn.values() if figure is not None],
        left_out=left_out,
        command=command,
    )


def _facts(records: Sequence[JsonRecord], runs: Sequence[MeasuredRun]) -> list[tuple[str, str]]:
    """Return what was measured, on what, and with what."""
    protocols = Counter(run.protocol for run in runs)
    bases = {run.k: run.unedited for run in runs}
    seconds = sum(record["seconds"] for record in records)
    versions = [f"{name} {_shared(records, name)}" for name in ("isotone", "torch", "transformers")]
    return [
        ("Model", f"{_shared(records, 'model')} ({_shared(records, 'model_hash', digits=12)})"),
        ("Text", f"{_shared(records, 'text')} ({_shared(records, 'text_hash', digits=12)})"),
        ("Windows", f"{_shared(records, 'windows')} of {_shared(records, 'context')} tokens"),
        ("Windows begin with", _shared(records, "bos")),
        ("Clustering", _shared(records, "clustering")),
        ("Unedited perplexity", ", ".join(f"{bases[k]:.3f} at K = {k}" for k in sorted(bases))),
        (
            "Runs",
            f"{len(runs)} edited: {', '.join(f'{n} {name}' for name, n in protocols.items())}; "
            f"{seconds / 60:,.0f} minutes of measuring",
        ),
        (
            "Computed in",
            f"{_shared(records, 'dtype')} on {_shared(records, 'device')}, "
            f"{_shared(records, 'n_threads')} threads; {', '.join(versions)}",
        ),
        ("The paper", _PAPER),
    ]


def _model(records: Sequence[JsonRecord]) -> str:
    return Path(str(records[0]["provenance"].get("model", ""))).name or "A model"


def _shared(records: Sequence[JsonRecord], key: str, *, digits: int | None = None) -> str:
    """Return what all records have under a key of their provenance, or each of what they have."""
    found = dict.fromkeys(_value_text(record["provenance"].get(key)) for record in records)
    return " | ".join(text[:digits] for text in found)


def _value_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value_text(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return "–" if value is None else str(value)


def _claims_table(runs: Sequence[MeasuredRun]) -> Table:
    return Table(
        heading="Claims",
        note="Middle and late layers are those from a third of the depth on. A layer counts once "
        "for each edit and K, by the median of its runs; in brackets, all runs from the least to "
        "the worst.",
        columns=("The paper says", "This model shows", "By how much"),
        rows=[[[claim.paper], [claim.shows], claim.figures] for claim in claims(runs)],
    )


def _survival_table(runs: Sequence[MeasuredRun]) -> list[Table]:
    """Return the table of the claim on collapse, for each order, edit, correction and K."""
    rows = [
        [
            [f"{found.k}"],
            [ORDERS.get(found.order, found.order)],
            [found.variant],
            [correction_text(found.correction)],
            [found.layers_text(found.median)],
            [" to ".join(map(found.layers_text, (found.survivals[0], found.survivals[-1])))],
            [f"{len(found.survivals)}"],
            [growth_text(found.growth)],
        ]
        for found in survivals(runs)
    ]
    table = Table(
        heading="Survival: layers replaced until perplexity has doubled",
        note="Medians and ranges over seeds, in the numbers of layers that were measured. The last "
        "column is the residual stream's RMS after the last layer when perplexity had doubled, in "
        "times the unedited one: the median over seeds.",
        columns=("K", "Order", "Edit", "Correction", "Layers", "Range", "Seeds", "RMS"),
        rows=rows,
    )
    return [table] if rows else []


def _error_table(runs: Sequence[MeasuredRun]) -> list[Table]:
    """Return the table of the claim on order and error, for each error."""
    found = equal_errors(runs)
    used = [name for name in CATEGORIES if any(name in row.cells for row in found)]
    rows = []
    for row in found:
        cells = [row.cells.get(name) for name in used]
        shown = [
            [
                f"× {ratio_text(cell.perplexity_ratio)}"
                + ("" if cell.spearman is None else f" (rho {cell.spearman:.2f})")
            ]
            if cell
            else ["–"]
            for cell in cells
        ]
        rows.append([[f"{row.k}"], [f"{row.at_error:g}"], *shown])
    n_missed = sum(map(missed_error, runs))
    missed = (
        f" Left out: {n_missed} runs that missed their error by more than {TOLERANCE:.0%}."
        if n_missed
        else ""
    )
    table = Table(
        heading="Damage at the same relative error of the weights",
        note="Medians over layers, edits and seeds, each edit scaled to one relative L2 error; in "
        "brackets the median of Spearman's rho, as measured on the codebooks." + missed,
        columns=("K", "Error", *used),
        rows=rows,
    )
    return [table] if rows else []
