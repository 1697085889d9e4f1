"""Measure compressing on a Ray cluster of one-core nodes, beside this machine's own workers.

The nodes are processes of this machine (ray.cluster_utils), each held to a core of its own; the
cluster is up before a command is timed. A command is the whole `isotone compress`, the start of the
driver included. All outputs must be byte for byte the same.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isotone.checkpoint.compressed.file_record import hash_file
from measuring.command import Run, isotone
from measuring.disk import drop_cache
from measuring.tables import print_table, write_results

WORK = Path(__file__).resolve().parent.parent / "work" / "scaling"
NODES = Path(__file__).with_name("measuring") / "ray_nodes.py"


@contextmanager
def cluster(n_nodes: int) -> Iterator[str]:
    """So many nodes, in processes of their own, for this one should hold little; the address."""
    command = [sys.executable, str(NODES), str(n_nodes)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as made:
        yield made.stdout.readline().strip()
        made.stdin.close()


def digests(directory: Path) -> dict[str, str]:
    """Hashes of all files, by name."""
    return {path.name: hash_file(path) for path in sorted(directory.iterdir())}


class Bench:
    """Runs commands on one checkpoint, and checks that they all make the same."""

    def __init__(self, source: Path, options: list[str]) -> None:
        self.source, self.options = source, options
        self._expected: dict[str, str] | None = None

    def compress(self, *where: object) -> Run:
        """Once, cold; raises RuntimeError where the output is another than before."""
        out = WORK / "out"
        shutil.rmtree(out, ignore_errors=True)
        drop_cache(sorted(self.source.glob("*.safetensors")))
        run = isotone("compress", self.source, out, *self.options, *where)
        found = digests(out)
        shutil.rmtree(out)
        self._expected = self._expected or found
        if found != self._expected:
            raise RuntimeError(f"{where}: the output is another one")
        return run


def synthetic(gigabytes: int) -> Path:
    """The checkpoint; a process of its own makes it, so that this one stays small."""
    source = WORK / f"llama-{gigabytes}"
    script = Path(__file__).with_name("inputs") / "synthetic_llama.py"
    command = [sys.executable, str(script), str(source), "--gigabytes", str(gigabytes)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return source


def measure(gigabytes: int, options: list[str], repeats: int) -> dict[str, object]:
    """Medians of whole commands on one node, on two, and here."""
    bench = Bench(synthetic(gigabytes), options)
    runs: dict[str, list[Run]] = {"one node": [], "two nodes": [], "two workers here": []}
    for _ in range(repeats):
        for name, n in (("one node", 1), ("two nodes", 2)):
            with cluster(n) as address:
                runs[name].append(bench.compress("--engine", "ray", "--address", address))
        runs["two workers here"].append(bench.compress("--workers", 2))
    seconds = {name: statistics.median(r.seconds for r in each) for name, each in runs.items()}
    source_bytes = sum(path.stat().st_size for path in bench.source.glob("*.safetensors"))
    return {
        "source_bytes": source_bytes,
        "options": options,
        "repeats": repeats,
        "seconds": {name: [r.seconds for r in each] for name, each in runs.items()},
        "median_seconds": seconds,
        "two_nodes_over_one": seconds["one node"] / seconds["two nodes"],
        "overhead_over_local": seconds["two nodes"] / seconds["two workers here"] - 1,
        "driver_peak_rss_bytes": max(r.peak_rss_bytes for r in runs["two nodes"]),
        "local_peak_rss_bytes": max(r.peak_rss_bytes for r in runs["two workers here"]),
    }


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--options", nargs="*", default=["--k", "16"])
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    sizes = [measure(size, given.options, given.repeats) for size in given.sizes]
    shown = ("two_nodes_over_one", "overhead_over_local", "driver_peak_rss_bytes")
    rows = [(key, *(size[key] for size in sizes)) for key in (*shown, "local_peak_rss_bytes")]
    for name in ("one node", "two nodes", "two workers here"):
        rows.append((f"{name}, s", *(size["median_seconds"][name] for size in sizes)))
    columns = ("", *(f"{size['source_bytes'] / 1e9:.2f} GB" for size in sizes))
    print_table("compress on Ray", columns, rows)
    write_results("scaling", {"sizes": sizes})


if __name__ == "__main__":
    main()
