"""Measure the frontier of SmolLM2: isotone and its data-free baselines, quality over measured bits.

Only linear layers are compressed; the embedding is kept. All points are measured in this run, on
the same text and windows, each with the bytes that its own storage needs: isotone by `isotone
frontier`, which writes and loads real files, the baselines by round_trips.py (with
--recorded-peers, in an earlier run, from results/frontier.json). The chart goes to work/frontier,
as a PNG and as an interactive page; the PNG also goes to docs/, where the README shows it.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from inputs.smollm2_dense import DEFAULT, smollm2_dense
from isotone.evaluation.frontier.sweep import frontier
from isotone.evaluation.frontier.variants import frontier_variants
from isotone.models.text import BUILTIN
from isotone.reporting.frontier.chart import frontier_chart
from isotone.reporting.page import write_chart
from measuring.tables import DIRECTORY, print_table, write_results

WORK = DEFAULT.with_name("frontier")
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "frontier-smollm2.png"
BITS = (2.6, 3.1, 3.65, 3.9, 4.1, 5.0)
K = (16, 32, 64)
CAPTION = (
    "SmolLM2-135M-Instruct, linear layers, {text}, {windows} windows of 1,024 tokens. Bits are "
    "what each format stores on disk for a weight, all included. No method uses data "
    "(calibrated: text that the model wrote). The model's "
    "weights come from a 4-bit file (Q4_1: blocks of 32 with 16 even levels each), which favours "
    "formats whose blocks fall on those: HQQ, and above all Q4_K/Q5_0 (perplexity 31.2, or 32.6 "
    "with blocks shifted against them). llama.cpp puts only down_proj into K-quants here, for the "
    "other rows are no multiple of 256; Q4_K and Q3_K fall back to Q5_0 and Q4_0 there."
)


def measured_baselines(model: Path, given: argparse.Namespace) -> list[dict]:
    """Measure the baselines that were asked for, all by default, and return their points."""
    from baselines.formats import BASELINES
    from round_trips import measure

    names = list(BASELINES) if given.peers is None else given.peers
    points = measure(model, given.text, given.windows, 1024, names)
    return [{"kind": "peer", **point} for point in points]


def recorded_baselines(protocol: dict) -> list[dict]:
    """Return the baselines as they were last measured; exit if the protocol was another one."""
    recorded = json.loads((DIRECTORY / "frontier.json").read_text("utf-8"))
    if recorded["protocol"] != protocol:
        raise SystemExit(f"the recorded baselines were judged otherwise: {recorded['protocol']}")
    taken = recorded["taken"]["at"]
    return [{"taken": taken, **baseline} for baseline in recorded["peers"]]


def main() -> None:
    """Measure the baselines, sweep isotone, and draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", default=BUILTIN, metavar="FILE")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--peers", nargs="*", default=None, metavar="NAME", help="all by default")
    parser.add_argument(
        "--recorded-peers", action="store_true", help="those of results/frontier.json, not anew"
    )
    given = parser.parse_args()
    model = smollm2_dense()
    shutil.rmtree(WORK, ignore_errors=True)
    points = frontier(
        model,
        WORK,
        given.text,
        variants=frontier_variants(BITS, K, calibrate="self"),
        windows=given.windows,
        exclude=["*embed_tokens*"],
    )
    found = [asdict(point) for point in points]
    text = Path(given.text).name
    protocol = {"text": text, "windows": given.windows, "context": 1024, "dtype": "float32"}
    baselines = (
        recorded_baselines(protocol) if given.recorded_peers else measured_baselines(model, given)
    )
    caption = CAPTION.format(text=text, windows=given.windows)
    chart = frontier_chart(
        [*found, *baselines], title="SmolLM2: quality over size", caption=caption
    )
    _, png = write_chart(chart, WORK, "frontier")
    shutil.copyfile(png, PICTURE)
    print_table(
        f"{text}, {given.windows} windows of 1,024 tokens, linear layers",
        ("", "bits a weight", "perplexity", "standard error", "KL", "same top-1"),
        [
            (
                f"{p['family']}: {p['label']}",
                f"{p['bits_per_weight']:.3f}",
                *(_shown(p, name) for name in _FIGURES),
            )
            for p in sorted([*found, *baselines], key=lambda p: p["bits_per_weight"])
        ],
    )
    write_results(
        "frontier",
        {"protocol": protocol, "points": json.loads(json.dumps(found)), "peers": baselines},
    )


_FIGURES = {
    "perplexity": "{:,.2f}",
    "perplexity_standard_error": "{:,.2f}",
    "kl": "{:.3f}",
    "top1_agreement": "{:.1%}",
}


def _shown(point: dict, name: str) -> str:
    value = point.get(name)
    return "" if value is None else _FIGURES[name].format(value)


if __name__ == "__main__":
    main()
