"""Compress a real language model in four ways, and show what that did to it.

    python examples/demo.py MODEL WORK

The demonstration compresses a dense model directory to 5 and to 4 bits a weight, with K = 16, and
with plain k-means at K = 16, and verifies each result against the dense model. It prints one table
with size, error, time and quality, and how each model continues the same prompt. `make demo` runs
it on SmolLM2-135M-Instruct, which benchmarks/inputs/smollm2_dense.py obtains.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

import isotone

PROMPT = "The three primary colors are"
TOKENS = 24
VARIANTS = {
    "--bits 5": {"bits": 5.0},
    "--bits 4": {"bits": 4.0},
    "--k 16": {"k": 16},
    "--k 16, plain": {"k": 16, "protect": "off", "scale": "none"},
}

console = Console(width=118, highlight=False)


def main() -> None:
    """Run the demonstration in a working folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, metavar="MODEL", help="a dense model directory")
    parser.add_argument("work", type=Path, metavar="WORK", help="where the compressed models go")
    parser.add_argument("--text", default="builtin", help="what perplexity is measured on")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--linear", action="store_true", help="keep the embedding as it is")
    options = parser.parse_args()
    disable_progress_bar()

    dense: Path = options.model
    exclude = ["*embed_tokens*"] if options.linear else []

    def judge(model: Path, reference: Path | None) -> isotone.Evaluation:
        return isotone.evaluate(model, options.text, windows=options.windows, reference=reference)

    console.print(f"Dense: judging on {options.text} text ...")
    table = _table(dense.name, options.text)
    continuations = [("dense", isotone.generate(dense, PROMPT, max_tokens=TOKENS).text)]
    evaluation = judge(dense, None)
    n_bytes = sum(path.stat().st_size for path in dense.iterdir())
    table.add_row(
        "dense bf16", "16", _size(n_bytes), "", "", f"{evaluation.perplexity:.2f}", "", ""
    )
    for label, arguments in VARIANTS.items():
        out = options.work / f"{dense.name}-{label.strip('-').replace(' ', '').replace(',', '-')}"
        _add_variant(table, label, dense, out, {**arguments, "exclude": exclude}, judge)
        continuations.append((label, isotone.generate(out, PROMPT, max_tokens=TOKENS).text))
    console.print(table)
    for label, text in continuations:
        one_line = " ".join(text.split())
        console.print(f"[bold]{label:14}[/] {PROMPT} [green]{one_line}[/]")
    console.print(f"\nThe models are in {options.work}/; try:  .venv/bin/isotone --help")


def _add_variant(
    table: Table,
    label: str,
    dense: Path,
    out: Path,
    arguments: dict[str, Any],
    judge: Callable[[Path, Path | None], isotone.Evaluation],
) -> None:
    console.print(f"{label}: compressing, verifying, judging ...")
    summary = isotone.compress(dense, out, overwrite=True, **arguments)
    verification = isotone.verify(out, against=dense)
    if not verification.ok:
        raise SystemExit("\n".join(verification.failures))
    evaluation = judge(out, dense)
    table.add_row(
        label,
        f"{summary.bits_per_weight:.2f}",
        _size(summary.output_bytes),
        f"{summary.relative_distortion:.1e}",
        f"{summary.seconds:.1f} s",
        f"{evaluation.perplexity:,.2f}",
        f"{evaluation.kl:.3f}",
        f"{evaluation.top1_agreement:.1%}",
    )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.3g} MB"


def _table(model: str, text: str) -> Table:
    table = Table(title=f"{model}, judged on {text} text", title_justify="left")
    for column in ("", "bits/weight", "size", "error", "time", "perplexity", "KL", "same top-1"):
        table.add_column(column, justify="right" if column else "left")
    return table


if __name__ == "__main__":
    main()
