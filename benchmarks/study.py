"""Measure what a run of a study costs, and whether known figures come out again, on SmolLM2.

At K = 64, ten layers, spread evenly, are edited one at a time: alternately with the activations
below them reused and computed anew, with the same results. The cost of an edit is the time of a
run without that of its pass. The known figures are single layers, with order kept and broken, of
plain k-means without protection.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from inputs.smollm2_dense import smollm2_dense
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Silent
from isotone.study.inputs import StudyInputs, places_in
from isotone.study.plan import parse_plan
from isotone.study.protocols import expand
from isotone.study.studied_model import StudiedModel
from measuring.tables import print_table, write_results

PLAN = """
[clustering]
k = [64]
protect = "off"
[evaluation]
context = 512
windows = 4
[[grid]]
name = "layers to time"
protocol = "layer"
layers = { spread = 10 }
edits = ["sorted_normal"]
[[grid]]
name = "order kept, moments restored"
protocol = "layer"
layers = [1, 8, 15, 22]
edits = ["sorted_normal"]
[[grid]]
name = "order broken, moments restored"
protocol = "layer"
layers = [1, 8, 15, 22]
edits = ["permute"]
[[grid]]
name = "order kept, not corrected"
protocol = "layer"
layers = [8, 15, 22]
edits = ["sorted_normal"]
corrections = ["none"]
[[grid]]
name = "all layers"
protocol = "together"
edits = ["sorted_normal"]
"""
TIMED = "layers to time"


def timed(model: StudiedModel, run: object, *, reuse: bool) -> tuple[float, float, object]:
    """Seconds of a run, and of its pass alone, and the record."""
    passes, seconds = model._passes, []
    compare = passes.compare

    def watched(*given: object, **options: object) -> object:
        started = time.monotonic()
        result = compare(*given, **options)
        seconds.append(time.monotonic() - started)
        return result

    passes.compare = watched
    try:
        started = time.monotonic()
        record = model.measure(run, reuse=reuse)
        return time.monotonic() - started, seconds[0], record
    finally:
        del passes.compare


def same(one: object, other: object) -> bool:
    """Whether two records tell the same, to the last digit."""
    return all(
        getattr(one, key) == getattr(other, key)
        for key in ("loss", "kl", "top1_agreement", "drift")
    )


def measure(model: StudiedModel, runs: list) -> dict:
    """The known points, and what reuse and editing cost."""
    whole = {True: 0.0, False: 0.0}
    shares, points = [], []
    for run in runs:
        seconds, of_pass, record = timed(model, run, reuse=True)
        if run.grid == TIMED:
            slowly, _, again = timed(model, run, reuse=False)
            assert same(record, again), "reuse has changed a result"
            whole[True] += seconds
            whole[False] += slowly
            shares.append(seconds / of_pass - 1)
            continue
        points.append(
            {
                "grid": run.grid,
                "layers": list(run.layers),
                "perplexity": record.perplexity,
                "times_unedited": record.perplexity / record.unedited_perplexity,
                "editing_share": seconds / of_pass - 1,
            }
        )
    return {
        "unedited_perplexity": record.unedited_perplexity,
        "seconds_with_reuse": whole[True],
        "seconds_without": whole[False],
        "times_faster": whole[False] / whole[True],
        "editing_share": statistics.median(shares),
        "points": points,
    }


def report(found: dict) -> None:
    """Print it."""
    rows = [
        (
            f"{point['grid']}, {len(point['layers'])} layers"
            if len(point["layers"]) > 1
            else f"{point['grid']}, layer {point['layers'][0]}",
            f"{point['perplexity']:,.2f}",
            f"{point['times_unedited']:,.4g}",
            f"{point['editing_share']:.1%}",
        )
        for point in found["points"]
    ]
    title = f"unedited: {found['unedited_perplexity']:.2f}"
    print_table(title, ("", "perplexity", "times unedited", "editing costs"), rows)
    print(
        f"single layers: {found['times_faster']:.2f} x faster with activations reused, to the same "
        f"bits; an edit costs {found['editing_share']:.1%} of its evaluation"
    )


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", default="builtin", metavar="FILE")
    given = parser.parse_args()
    plan = parse_plan(PLAN, "known points", "benchmarks/study.py")
    engine = LocalEngine()
    inputs = StudyInputs.open(plan, smollm2_dense(), given.text, engine, "float32", "cpu", Silent())
    with tempfile.TemporaryDirectory() as directory:
        clusterings = inputs.clusterings(Path(directory), engine, Silent())
        model = StudiedModel(clusterings[64], 64, inputs.windows, inputs.provenance)
        sequences = expand(plan, [64], places_in(clusterings[64].manifest))
        found = measure(model, [run for sequence in sequences for run in sequence])
    report(found)
    write_results("study", {"text": Path(given.text).name, **found})


if __name__ == "__main__":
    main()
