"""One run of a study, and the record that is kept of it as a line of JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

UNEDITED, EDITED = "unedited", "edited"


@dataclass(frozen=True)
class Provenance:
    """What all runs in one directory of results share.

    Files go by their names, and what is in them by hashes.

    Attributes
    ----------
    model : str
        The name of the model's directory, or a hub id.
    model_hash : str
        The hash of a dense model (see `isotone.evaluation.provenance`), or the digest of a
        clustered directory.
    text : str
        The name of the text's file.
    text_hash : str
        The SHA-256 of the text.
    context : int
        The tokens of a window.
    windows : int
        The number of windows.
    clustering : dict
        The arguments for `isotone.compress`; empty for a model that was clustered already.
    dtype : str
        The dtype that the model runs in.
    device : str
        The device that the model runs on, as torch names it.
    isotone, torch, transformers, numpy : str
        The versions of the packages.
    n_threads : int
        The threads of torch in each worker. The last digits of sums may depend on it, so it is
        recorded, but results of different numbers of threads may stand together.
    bos : tuple of str
        The tokens that every window begins with, as the tokenizer writes them. Records of versions
        that knew no such tokens had none.
    """

    model: str
    model_hash: str
    text: str
    text_hash: str
    context: int
    windows: int
    clustering: dict[str, Any]
    dtype: str
    device: str
    isotone: str
    torch: str
    transformers: str
    numpy: str
    n_threads: int = field(compare=False)
    bos: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyRun:
    """What one run edits, and how.

    Attributes
    ----------
    grid : str
        The name of the plan's grid.
    protocol : str
        One of `isotone.study.plan.PROTOCOLS`.
    k : int
        The K of the clustering.
    layers : tuple of int
        The edited layers, in the order in which they were replaced.
    types : tuple of str
        The types of the edited matrices: what they are called within a layer.
    edit : str
        The name of the edit, one of `isotone.study.EDITS`.
    parameters : dict of str to float
        The edit's parameters.
    at_error : float or None
        The relative error that the edit is scaled down to; None for the edit as it is.
    correction : str
        The name of the correction, one of `isotone.study.CORRECTIONS`.
    order : str or None
        The order of a progressive replacement: "first", "last" or "random"; None for other
        protocols.
    seed : int
        The seed of what is drawn.
    tasks : tuple of str
        The tasks of lm-eval that are run, by name or file.
    until : float or None
        The multiple of the unedited perplexity at which a progressive sequence ends. It does not
        change what the run is, so runs are compared without it.
    """

    grid: str
    protocol: str
    k: int
    layers: tuple[int, ...]
    types: tuple[str, ...]
    edit: str
    parameters: dict[str, float]
    at_error: float | None
    correction: str
    order: str | None
    seed: int
    tasks: tuple[str, ...]
    until: float | None = field(compare=False, repr=False)


@dataclass(frozen=True)
class Drift:
    """How an edit changed the residual stream: an entry for each layer, None if not finite.

    Attributes
    ----------
    rms, mean : list of float or None
        The root mean square and the mean over all entries of the stream.
    growth : list of float or None
        The RMS of each token, edited over unedited: the geometric mean over tokens, which a few
        tokens of enormous norm do not dominate.
    cosine : list of float or None
        The cosine of each token's stream to the unedited stream, the mean over tokens.
    """

    rms: list[float | None]
    mean: list[float | None]
    growth: list[float | None]
    cosine: list[float | None]


@dataclass(frozen=True)
class StudyRecord:
    """A run and what was measured.

    Attributes
    ----------
    kind : str
        `UNEDITED`, where `run` is None, or `EDITED`.
    k : int
        The K of the clustering.
    clustering_hash : str
        The digest of the clustered directory.
    run : StudyRun or None
        What was edited; None for the unedited model.
    keeps : tuple of str
        What the edit declares to keep: some of "order", "signs" and "values".
    n_matrices, n_weights : int
        The numbers of edited matrices and weights.
    spearman, kendall, mean_shift, scale : float or None
        Means over the edited matrices of the measures of `isotone.study.CodebookComparison`; None
        where infinite.
    relative_error, cosine : float or None
        The same measures of all edited weights together; None where infinite.
    perplexity, loss : float or None
        Of the edited model; the loss in nats per token. None where no finite number came, as from a
        collapsed model.
    kl, top1_agreement : float or None
        The divergence in nats per token, and the fraction of tokens whose most likely next token is
        the same, against the unedited clustered model; None likewise.
    unedited_perplexity : float
        The perplexity of the unedited clustered model on the same windows.
    n_tokens : int
        The number of scored tokens.
    drift : Drift
        How the residual stream changed.
    tasks : dict
        The scores by task and measure.
    seconds : float
        The duration of the whole run, the edit included.
    provenance : Provenance
        What all runs of these results share.
    """

    kind: str
    k: int
    clustering_hash: str
    run: StudyRun | None
    keeps: tuple[str, ...]
    n_matrices: int
    n_weights: int
    spearman: float | None
    kendall: float | None
    relative_error: float | None
    cosine: float | None
    mean_shift: float | None
    scale: float | None
    perplexity: float | None
    loss: float | None
    kl: float | None
    top1_agreement: float | None
    unedited_perplexity: float
    n_tokens: int
    drift: Drift
    tasks: dict[str, dict[str, float | int | None]]
    seconds: float
    provenance: Provenance


def parse_record(content: dict[str, Any]) -> StudyRecord:
    """Make a record of the object of its line.

    Parameters
    ----------
    content : dict
        The object, as `json.loads` gives it.

    Returns
    -------
    StudyRecord
        The record. An object of another kind raises KeyError or TypeError.
    """
    run: Any = content["run"]
    provenance = content["provenance"]
    if run is not None:
        fields: Any = {key: tuple(v) if isinstance(v, list) else v for key, v in run.items()}
        run = StudyRun(**fields)
    return StudyRecord(
        **content
        | {
            "run": run,
            "keeps": tuple(content["keeps"]),
            "drift": Drift(**content["drift"]),
            "provenance": Provenance(**provenance | {"bos": tuple(provenance.get("bos", ()))}),
        }
    )
