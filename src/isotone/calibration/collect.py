"""Collects what flows through the matrices of a language model: the statistics of calibration.

Text runs through the model in float32, layer by layer: all windows through one of them before the
next is read, and second moments of its inputs are added up and written. Then gradients run back
through some of the windows, from the last layer to the first, each once more in memory, of
predictions that are drawn from the model's own distribution at every position: their squares are
the outputs' Fisher information, with nobody's labels. What goes from layer to layer is kept in
files until the gradients have passed, so that a killed run goes on with the layer it was at.

A model that does not run in parts (see parts.py) is one part, by the same steps. Where the moments
of a part are more than a share of the machine's memory, windows run through it several times.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isotone.calibration.layerwise import Sweep
from isotone.calibration.parts import Parts
from isotone.calibration.route import NotInPartsError
from isotone.calibration.statistics import INDEX_FILE, text_file, write_array, write_index
from isotone.calibration.text import calibration_text
from isotone.checkpoint.source.source import Source
from isotone.engine.progress import Progress
from isotone.models.open_source import runnable
from isotone.plan.tensors import Clustered

_BY_LAYER, _WHOLE = ".layers", ".whole"  # what is kept of unfinished work


def collect(
    source: Source, plans: Sequence[Clustered], text: str, out: Path, progress: Progress
) -> None:
    """Write the statistics of some tensors of a model directory into `out`.

    text: `self`, or the path of a text file. What an earlier call with the same arguments finished
    there is kept. Raises InputError where the model cannot be run or the text not be used.
    Cost: the text through the model once, a third of it twice forth and once back, and tokens *
    columns^2 for each input. Memory, in float32: a layer and what lies outside of layers, second
    moments of a layer and at most a quarter of the machine's, and the stream of the text at one
    place. Disk, for a while: the stream behind each layer.
    """
    if (out / INDEX_FILE).exists():
        return
    source = runnable(source)
    out.mkdir(parents=True, exist_ok=True)
    if not text_file(out).exists():
        write_array(text_file(out), calibration_text(source, text, progress))
    windows = np.load(text_file(out))
    about = {
        "source": source.identity(),
        "text": text,
        "n_windows": len(windows),
        "context": windows.shape[1],
    }
    try:
        sweep = Sweep(Parts.by_layer(source), source, plans, windows, out, out / _BY_LAYER)
        observed = sweep.run(progress)
    except NotInPartsError as reason:
        about["whole_model"] = str(reason)
        sweep = Sweep(Parts.whole(source), source, plans, windows, out, out / _WHOLE)
        observed = sweep.run(progress)
    write_index(out, about, observed)
    for unfinished in (_BY_LAYER, _WHOLE):
        shutil.rmtree(out / unfinished, ignore_errors=True)
