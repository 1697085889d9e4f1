"""Collects the statistics of calibration by running text through a language model.

The text runs through the model in float32, layer by layer: all windows pass through one layer
before the next layer is read, and the second moments of the inputs of its matrices are added up and
written. Then gradients run backward through some of the windows, from the last layer to the first,
each of which is loaded once more. The loss is that of predictions drawn from the model's own
distribution at every position, so the mean squared gradients are the Fisher information of the
outputs, and no labels are needed. The activations and gradients between layers are kept in files
until they have been used, so that a killed run goes on with the layer it was at.

A model that cannot run one layer at a time (see `parts.py`) is treated as one part, by the same
steps. Where the second moments of a part would take more than a share of the machine's memory, the
windows run through it several times.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isotone.calibration.arrays import load_array, write_array
from isotone.calibration.layerwise import LayerwiseRun
from isotone.calibration.parts import PartitionedModel
from isotone.calibration.route import NotLayerwiseError
from isotone.calibration.statistics import INDEX_FILE, StatisticsEntry, text_file, write_index
from isotone.calibration.text import calibration_text
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.vocabulary import has_row_per_token
from isotone.engine.progress import Progress
from isotone.errors import InputError
from isotone.models.open_source import runnable
from isotone.models.prefix import Prefix
from isotone.plan.tensors import Clustered

_BY_LAYER, _WHOLE = ".layers", ".whole"  # directories of unfinished work


def collect(
    source: Source,
    plans: Sequence[Clustered],
    text: str,
    prefix: Prefix,
    out: Path,
    progress: Progress,
) -> None:
    """Write the statistics of some tensors of a model directory.

    Parameters
    ----------
    source : Source
        The model, a directory on this machine.
    plans : sequence of Clustered
        The tensors.
    text : str
        `self` for text that the model generates, or the path of a text file.
    prefix : Prefix
        The tokens that every window of the text begins with.
    out : Path
        The directory to write. What an earlier call with the same arguments finished there is
        kept.
    progress : Progress
        Is told how many tokens have run through how many layers.

    Raises
    ------
    InputError
        If the model cannot be run, the text cannot be used, or no matrix was seen at work.

    Notes
    -----
    The text runs through the model once, and a third of it once more forward and backward; each
    input adds `tokens * columns**2` multiplications. Memory, in float32: one layer, the weights
    outside of the layers, the second moments of one layer (at most a quarter of the machine's
    memory), and the activations of the whole text between two layers. Those activations behind
    every layer take space on disk until the work is done.
    """
    if (out / INDEX_FILE).exists():
        return
    source = runnable(source)
    out.mkdir(parents=True, exist_ok=True)
    if not text_file(out).exists():
        write_array(text_file(out), calibration_text(source, text, prefix, progress))
    windows = np.array(load_array(text_file(out)))
    about = {
        "source": source.identity(),
        "text": text,
        "n_windows": len(windows),
        "context": windows.shape[1],
        "bos": prefix.names,
    }

    def run(model: PartitionedModel, unfinished: str) -> list[StatisticsEntry]:
        work = LayerwiseRun(model, source, plans, windows, out, out / unfinished, len(prefix))
        return work.collect(progress)

    try:
        entries = run(PartitionedModel.by_layer(source), _BY_LAYER)
    except NotLayerwiseError as reason:
        about["whole_model"] = str(reason)
        entries = run(PartitionedModel.whole(source), _WHOLE)
    linear = {p.tensor.name for p in plans if not has_row_per_token(source, p.tensor)}
    if linear.isdisjoint(entry.tensor for entry in entries) if linear else not entries:
        raise _nothing_seen(source, sum(plan.n_matrices for plan in plans))
    write_index(out, about, entries)
    for unfinished in (_BY_LAYER, _WHOLE):
        shutil.rmtree(out / unfinished, ignore_errors=True)


def _nothing_seen(source: ModelDirectory, n_matrices: int) -> InputError:
    return InputError(
        f"{source.directory}: no linear layer that ran on text uses any of its {n_matrices} "
        "matrices, so nothing can be calibrated; transposed layers as those of GPT-2 cannot be; "
        "compress without --calibrate"
    )
