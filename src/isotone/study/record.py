"""One run of a study, as the line that is kept of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

UNEDITED, EDITED = "unedited", "edited"


@dataclass(frozen=True)
class Provenance:
    """What all runs of one directory of results share; files by name, their content by hash.

    model_hash: of what was given as the model: see evaluate.provenance, or the digest of a
    clustered directory. n_threads: of torch in each worker; sums may depend on it in their last
    digits, so it is told, but results of different numbers may stand together.
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


@dataclass(frozen=True)
class Run:
    """What is edited, and how.

    grid: of the plan, by name. protocol: see protocols.PROTOCOLS. k: of the clustering; 0 for one
    that was given as it is. layers: edited, in the order in which they were replaced. types: of
    matrices, as they are called within a layer. edit, parameters, correction: see edits.EDITS and
    affine.CORRECTIONS. at_error: the relative error it is scaled down to, or None. order: of
    progressive replacement, else None. tasks: of lm-eval. until: times the unedited perplexity at
    which a progressive sequence ends, or None; it does not change what the run is.
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
    """The residual stream after each layer, [layers] each, None where it is not finite.

    rms, mean: over all its entries. growth: of each token's RMS, edited by unedited, the geometric
    mean over tokens, which a few tokens of enormous norm do not rule. cosine: of each token's
    stream to the unedited one's, the mean over tokens.
    """

    rms: list[float | None]
    mean: list[float | None]
    growth: list[float | None]
    cosine: list[float | None]


@dataclass(frozen=True)
class Record:
    """A run and what was measured.

    kind: UNEDITED (run is None) or EDITED. k: of the clustering. clustering_hash: of its manifest.
    keeps: what the edit declares to keep. n_matrices, n_weights: that were edited.
    spearman, kendall, mean_shift, scale: means over the edited matrices, see study.comparison.
    relative_error, cosine: of all edited weights together; None for any of these that is infinite.
    perplexity, loss, kl, top1_agreement: the last two against the unedited clustered model; None
    where no finite number came, as from a collapsed model. unedited_perplexity: of the same
    windows. tasks: scores by task and measure. seconds: of the whole run, the edit included.
    """

    kind: str
    k: int
    clustering_hash: str
    run: Run | None
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


def parse_record(content: dict[str, Any]) -> Record:
    """A record from the object of its line; raises KeyError or TypeError for any other."""
    run: Any = content["run"]
    if run is not None:
        fields: Any = {key: tuple(v) if isinstance(v, list) else v for key, v in run.items()}
        run = Run(**fields)
    return Record(
        **content
        | {
            "run": run,
            "keeps": tuple(content["keeps"]),
            "drift": Drift(**content["drift"]),
            "provenance": Provenance(**content["provenance"]),
        }
    )
