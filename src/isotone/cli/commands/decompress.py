"""`isotone decompress`: write a compressed model as plain safetensors."""

from __future__ import annotations

from isotone.cli.console import print_json, say, size, warn
from isotone.cli.engines import at_work
from isotone.cli.options import Address, Cores, Directory, EngineName, Json, Out, Overwrite, Workers
from isotone.pipeline.decompress import decompress as run_decompress


def decompress(
    directory: Directory,
    out: Out,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write the dense model that DIR stands for, as safetensors."""
    with at_work(engine, address, cores, workers) as (progress, opened):
        summary = run_decompress(
            directory,
            out,
            workers=workers,
            engine=opened,
            overwrite=overwrite,
            progress=progress,
        )
    if summary.edited:
        warn(f"changed since it was compressed, and taken as it is: {', '.join(summary.edited)}")
    if json:
        print_json(summary)
        return
    rate = summary.output_bytes / summary.seconds
    say(
        f"{out}: {summary.n_tensors} tensors, {size(summary.output_bytes)} in "
        f"{summary.seconds:.1f} s ({size(rate)}/s)"
    )
