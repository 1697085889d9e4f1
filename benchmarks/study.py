"""What a run of a study costs, and whether known points come out again, on SmolLM2 at K = 64.

Every layer is edited alone: with the activations below it reused and without, by turns, to the same
results. An edit's own cost is what is left of a run when the pass is taken away. The known points
are single layers with the order kept and broken (../shared/design.md).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from isotone.engine.local import Silent
from isotone.study.plan import parse_plan
from isotone.study.protocols import expand
from isotone.study.sources import Sources
from isotone.study.subject import Subject
from results import print_table, write_results
from smollm2_dense import smollm2_dense

PLAN = """
[clustering]
k = [64]
[evaluation]
context = 512
windows = 4
[[grid]]
name = "order kept, moments restored"
protocol = "layer"
edits = ["sorted_normal"]
corrections = ["moments"]
[[grid]]
name = "order broken, moments restored"
protocol = "layer"
layers = [1, 8, 15, 22]
edits = ["permute"]
corrections = ["moments"]
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
corrections = ["moments"]
"""
KNOWN = (1, 8, 15, 22)


def timed(subject: Subject, run: object, *, reuse: bool) -> tuple[float, float, object]:
    """Seconds of a run, and of its pass alone, and the record."""
    passes, seconds = subject._passes, []
    compare = passes.compare

    def watched(*given: object, **options: object) -> object:
        started = time.monotonic()
        result = compare(*given, **options)
        seconds.append(time.monotonic() - started)
        return result

    passes.compare = watched
    try:
        started = time.monotonic()
        record = subject.measure(run, reuse=reuse)
        return time.monotonic() - started, seconds[0], record
    finally:
        del passes.compare


def same(one: object, other: object) -> bool:
    """Whether two records tell the same, to the last digit."""
    return all(
        getattr(one, key) == getattr(other, key)
        for key in ("loss", "kl", "top1_agreement", "drift")
    )


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", default="builtin", metavar="FILE")
    given = parser.parse_args()
    plan = parse_plan(PLAN, "known points", "benchmarks/study.py")
    sources = Sources.open(plan, smollm2_dense(), given.text, 1, "float32", "cpu", Silent())
    with tempfile.TemporaryDirectory() as directory:
        clusterings = sources.clusterings(Path(directory), Silent())
        subject = Subject(clusterings[64], 64, sources.windows, sources.provenance)
        sequences = expand(plan, [64], sources.places(clusterings))
        runs = [run for sequence in sequences for run in sequence]
        whole = {True: 0.0, False: 0.0}
        shares, points = [], []
        for run in runs:
            seconds, of_pass, record = timed(subject, run, reuse=True)
            if run.grid == runs[0].grid:
                slowly, _, again = timed(subject, run, reuse=False)
                assert same(record, again), "reuse has changed a result"
                whole[True] += seconds
                whole[False] += slowly
                shares.append(seconds / of_pass - 1)
            if run.protocol == "together" or run.layers[0] in KNOWN:
                points.append(
                    {
                        "grid": run.grid,
                        "layers": len(run.layers)
                        if len(run.layers) > 1
                        else f"layer {run.layers[0]}",
                        "perplexity": record.perplexity,
                        "times_unedited": record.perplexity / record.unedited_perplexity,
                        "seconds": seconds,
                        "editing_share": seconds / of_pass - 1,
                    }
                )
    print_table(
        f"unedited: {record.unedited_perplexity:.2f}",
        ("", "edited", "perplexity", "times unedited", "editing costs"),
        [
            (
                point["grid"],
                point["layers"],
                f"{point['perplexity']:,.2f}",
                f"{point['times_unedited']:,.3g}",
                f"{point['editing_share']:.1%}",
            )
            for point in points
        ],
    )
    ratio, share = whole[False] / whole[True], statistics.median(shares)
    print(f"single layers: {ratio:.2f} x faster with activations reused; editing costs {share:.1%}")
    write_results(
        "study",
        {
            "text": Path(given.text).name,
            "unedited_perplexity": record.unedited_perplexity,
            "seconds_with_reuse": whole[True],
            "seconds_without": whole[False],
            "times_faster": ratio,
            "editing_share": share,
            "points": points,
        },
    )


if __name__ == "__main__":
    main()
