"""The statistics of the matrices that have a row for each token: head and embedding.

The head of a model is a linear layer. An error E in it costs

    1/2 sum_t f[t] (E H E^T)_tt,    H = mean of x x^T over the final hidden states x,

where f[t] is the mean squared gradient of the loss with respect to the logit of token t, taken from
the predictions (`predictions.py`), so that it is known for every token of the vocabulary.

An embedding has no inputs, but its rows are read, and an error E in it costs

    1/2 sum_t q[t] (E G E^T)_tt,    G = mean of g g^T over the gradients g of rows that were read,

where q[t] is how often token t is read. It is taken to be the mean probability that the model gives
to the token, which is above 0 for tokens that the calibration text does not hold.

Both have the form of `Sensitivity`. A matrix that is both, as a tied one is, costs the sum, which
is taken as one product again: the second moments and the costs of the rows are each added up in
proportion to what they contribute to the sum.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isotone.calibration.arrays import load_array, write_array
from isotone.calibration.observe import Observation, Observer
from isotone.calibration.statistics import StatisticsEntry, inputs_file, outputs_file
from isotone.checkpoint.files.atomic import write_atomically
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.vocabulary import has_row_per_token
from isotone.plan.tensors import Clustered

_HEAD, _READ = "head", "read"


class VocabularyRecord:
    """Keeps what was observed of the head and of the embedding until both are known.

    Attribute `numbers` has the numbers of the matrices that have a row for each token.

    Parameters
    ----------
    source : Source
        The checkpoint.
    plans : sequence of Clustered
        The tensors to collect the statistics of.
    directory : Path
        Where the observations are kept.
    """

    def __init__(self, source: Source, plans: Sequence[Clustered], directory: Path) -> None:
        self._directory = directory
        self._names: dict[int, str] = {}
        number = 0
        for plan in plans:
            if has_row_per_token(source, plan.tensor):
                self._names[number] = plan.tensor.name
            number += plan.n_matrices
        self.numbers = frozenset(self._names)

    def keep_head(self, observer: Observer) -> None:
        """Take the head out of what was observed, and write it down.

        Parameters
        ----------
        observer : Observer
            What observed the inputs of a part's matrices.
        """
        if observer.head is None:
            return
        observation, predictions = observer.observations.pop(observer.head), observer.predictions
        if predictions is None or observation.moments is None:
            return  # the model makes no prediction for each row of the matrix
        rows = np.stack([predictions.information.numpy(), predictions.frequency.numpy()])
        write_array(self._file(_HEAD, "rows"), (rows / predictions.n_positions).astype(np.float32))
        self._write(_HEAD, observation)

    def keep_embedding(self, observer: Observer) -> None:
        """Take the embedding out of what was observed, and write it down.

        Parameters
        ----------
        observer : Observer
            What observed the gradients in a part.
        """
        for number in self.numbers & observer.observations.keys():
            self._write(_READ, observer.observations.pop(number))

    def finish(self, out: Path) -> list[StatisticsEntry]:
        """Write the statistics of the head and of the embedding.

        Parameters
        ----------
        out : Path
            The directory of the statistics.

        Returns
        -------
        list of StatisticsEntry
            Their entries: none if the model has no head that was observed, one if head and
            embedding are the same matrix.
        """
        if not self._file(_HEAD, "about", ".json").exists():
            return []
        information, frequency = np.array(load_array(self._file(_HEAD, "rows")))
        head, inputs = self._read(_HEAD)
        costs = {head.number: (head, inputs, information)}
        if self._file(_READ, "about", ".json").exists():
            read, gradients = self._read(_READ)
            if read.number == head.number:
                costs[head.number] = (head, *_sum(inputs, information, gradients, frequency))
            else:
                costs[read.number] = (read, gradients, frequency)
        for number, (_, moments, rows) in costs.items():
            write_array(inputs_file(out, number), moments)
            write_array(outputs_file(out, number), rows)
        return [
            StatisticsEntry(self._names[number], 0, number, number, 0, *observation.n_tokens)
            for number, (observation, *_) in sorted(costs.items())
        ]

    def _write(self, kind: str, observation: Observation) -> None:
        assert observation.moments is not None
        counts = np.maximum(observation.n_tokens, 1).astype(np.float32)
        moments = observation.moments.cpu().numpy() / counts[:, None, None]
        write_array(self._file(kind, "moments"), moments)
        about = {"number": observation.number, "n_tokens": observation.n_tokens}
        path = self._file(kind, "about", ".json")
        write_atomically(path, json.dumps(about).encode(), durable=False)

    def _read(self, kind: str) -> tuple[Observation, NDArray[np.float32]]:
        about = json.loads(self._file(kind, "about", ".json").read_text("utf-8"))
        observation = Observation(about["number"], about["number"], about["n_tokens"])
        return observation, np.array(load_array(self._file(kind, "moments")))

    def _file(self, kind: str, what: str, suffix: str = ".npy") -> Path:
        return self._directory / f"{kind}-{what}{suffix}"


def _sum(
    inputs: NDArray[np.float32],
    information: NDArray[np.float32],
    gradients: NDArray[np.float32],
    frequency: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the second moments and the costs of rows of a matrix that is head and embedding.

    The second moments are `[2, columns, columns]`, for clustering and held out. The trace of the
    first is that of `inputs`, so that both parts of the costs of rows have one unit.
    """
    ratio = float(np.trace(gradients[0]) / np.trace(inputs[0]))
    rows = information + np.float32(ratio) * frequency
    total = float(rows.sum(dtype=np.float64))
    head, read = (float(part.sum(dtype=np.float64)) for part in (information, frequency))
    moments = np.float32(head / total) * inputs + np.float32(read / total) * gradients
    return moments, rows
