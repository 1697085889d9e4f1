"""Measure a checkpoint of Llama-3.1-8B's size against its disk, and how time grows with size.

For each size, the checkpoint is made (inputs/synthetic_llama.py) and read once from a cold cache,
which is the first half of the hardware's limit. Then the whole `isotone compress` runs cold for
each K. Writing as many bytes as it wrote is the second half of the limit. `isotone verify` runs
cold; decoding alone runs on one core of this process; `isotone decompress` runs for the first K.
The last table says where the time goes (stages.py).

Whatever is made is removed as soon as it has served: 37 GB at most, for 16 GB.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inputs.synthetic_llama import SIZES
from isotone.checkpoint.compressed.decode import decode_checked
from isotone.checkpoint.opening import open_compressed
from isotone.models.open_source import open_source
from measuring.command import Run, isotone
from measuring.disk import drop_cache, read_seconds, write_seconds
from measuring.tables import print_table, write_results
from stages import matrices, print_stages, stage_seconds

WORK = Path(__file__).resolve().parent.parent / "work" / "large"
ONE_LAYER = "model.layers.0.*"


@dataclass(frozen=True)
class Limit:
    """What the disk alone takes, in seconds; see disk.py for the two ways."""

    plain: float
    behind: float


@dataclass(frozen=True)
class Case:
    """One checkpoint compressed with one K. Sizes in bytes, times in seconds."""

    source_bytes: int
    k: int
    read: Limit
    write: Limit
    compress: Run
    verify: Run
    decode_seconds: float
    decompress: Run | None

    def numbers(self) -> dict[str, object]:
        """What is written down, and shown."""
        seconds, source = self.compress.seconds, self.source_bytes
        numbers: dict[str, object] = {
            "source_bytes": source,
            "k": self.k,
            "output_bytes": self.compress.output["output_bytes"],
            "bits_per_weight": self.compress.output["bits_per_weight"],
            "read_limit_seconds": self.read.plain,
            "write_limit_seconds": self.write.plain,
            "read_behind_limit_seconds": self.read.behind,
            "write_behind_limit_seconds": self.write.behind,
            "compress_seconds": seconds,
            "compress_core_seconds": self.compress.core_seconds,
            "compress_gigabytes_per_second": source / seconds / 1e9,
            "compress_over_limit": seconds / (self.read.plain + self.write.plain),
            "compress_over_behind_limit": seconds / (self.read.behind + self.write.behind),
            "compress_peak_rss_bytes": self.compress.peak_rss_bytes,
            "verify_seconds": self.verify.seconds,
            "verify_gigabytes_per_second": source / self.verify.seconds / 1e9,
            "decode_gigabytes_per_core_second": source / self.decode_seconds / 1e9,
        }
        if self.decompress is not None:
            numbers |= {
                "decompress_seconds": self.decompress.seconds,
                "decompress_gigabytes_per_second": source / self.decompress.seconds / 1e9,
                "decompress_gigabytes_per_core_second": source / self.decompress.core_seconds / 1e9,
            }
        return numbers


def measure(source: Path, ks: Sequence[int], work: Path) -> list[Case]:
    """Take a checkpoint through every command, for each K; leaves nothing behind."""
    shards = sorted(source.glob("*.safetensors"))
    n_bytes = sum(path.stat().st_size for path in shards)
    read = Limit(read_seconds(shards), read_seconds(shards, behind=True))
    cases = []
    for k in ks:
        out, dense = work / f"k{k}", work / f"k{k}-dense"
        drop_cache(shards)
        compress = isotone("compress", source, out, "--k", k)
        n_written, scratch = compress.output["output_bytes"], work / "as-many-bytes"
        write = Limit(
            write_seconds(scratch, n_written), write_seconds(scratch, n_written, behind=True)
        )
        drop_cache(list(out.iterdir()))
        verify = isotone("verify", out)
        decode = _decode_seconds(out)
        decompress = None
        if k == ks[0]:
            decompress = isotone("decompress", out, dense)
            shutil.rmtree(dense)
        shutil.rmtree(out)
        cases.append(Case(n_bytes, k, read, write, compress, verify, decode, decompress))
    return cases


def _decode_seconds(directory: Path) -> float:
    """Restore every tensor on one core, hashes checked as in every command; writes nothing."""
    opened = open_compressed(directory)
    records = [*opened.manifest.clustered, *opened.manifest.kept]
    started = time.thread_time()
    for record in records:
        if record.file:
            for _ in decode_checked(opened, record):
                pass
    return time.thread_time() - started


def _make(gigabytes: int, work: Path) -> Path:
    """The checkpoint; a process of its own makes it, so that this one stays small."""
    script = Path(__file__).with_name("inputs") / "synthetic_llama.py"
    source = work / f"llama-{gigabytes}"
    command = [sys.executable, str(script), str(source), "--gigabytes", str(gigabytes)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return source


def _print(cases: Sequence[Case]) -> None:
    numbers = [case.numbers() for case in cases]
    columns = [f"{n['source_bytes'] / 1e9:.2f} GB, K = {n['k']}" for n in numbers]
    labels = list(dict.fromkeys(label for n in numbers for label in n))
    rows = [(label, *(n.get(label, "") for n in numbers)) for label in labels[2:]]
    print_table("large checkpoints", ("", *columns), rows)


def main() -> None:
    """Measure every size, then the stages on one layer of the last."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=[16])
    parser.add_argument("--k", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--work", type=Path, default=WORK, help="where there is room")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    cases, stages = [], {}
    for gigabytes in given.sizes:
        source = _make(gigabytes, given.work)
        cases += measure(source, given.k, given.work)
        if gigabytes == given.sizes[-1]:
            opened = open_source(source)
            layer = matrices(opened, ONE_LAYER)
            n_weights = sum(tensor.n_weights for tensor in layer)
            for k in given.k:
                seconds = stage_seconds(opened, layer, k)
                print_stages(f"one layer, K = {k}", seconds, n_weights)
                stages[f"k={k}"] = {name: 1e9 * s / n_weights for name, s in seconds.items()}
        if not given.keep:
            shutil.rmtree(source)
    _print(cases)
    content = {"cases": [case.numbers() for case in cases], "stage_nanoseconds_a_weight": stages}
    write_results("large", content)


if __name__ == "__main__":
    main()
