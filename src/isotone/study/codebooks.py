"""Edited codebooks of a live model, for `isotone.swapped`: exactly those of a study's run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.errors import InputError
from isotone.models.swap import clustered_tensors
from isotone.study.edits import EDITS
from isotone.study.edits.corrections import CORRECTIONS
from isotone.study.matrices import StudiedMatrix, edit_matrices
from isotone.study.plan import EditChoice, LayerChoice
from isotone.study.protocols import MatrixPlace, check_other, choose_layers, choose_types
from isotone.study.record import StudyRun


def edited_codebooks(
    model: Any,  # noqa: ANN401 (torch.nn.Module)
    edit: str,
    *,
    layers: LayerChoice = "all",
    matrices: str | Sequence[str] = "*",
    correction: str = "moments",
    at_error: float | None = None,
    seed: int = 0,
    **parameters: float,
) -> dict[str, NDArray[np.float32]]:
    """Return the codebooks that a study's run gives a model, as `isotone.swapped` takes them.

    A study and this function apply edits by the same code, so the perplexity of the swapped model
    is the one that the study records for the same edit, correction, layers and seed.

    Parameters
    ----------
    model : torch.nn.Module
        A model that was loaded from a clustered directory, dense or packed.
    edit : str
        The name of an edit, one of `isotone.study.EDITS`.
    layers : str, list of int, or dict
        The edited layers as plans name them: "all", numbers (negative ones count from the last
        layer), or `{"spread": n}` for n layers that are evenly spread.
    matrices : str or list of str
        Globs on the types of matrices within a layer, such as "mlp.*".
    correction : str
        The name of a correction, one of `isotone.study.CORRECTIONS`.
    at_error : float, optional
        The relative error of the weights that the edit is scaled down to; None for the edit as it
        is.
    seed : int
        The seed, 0 or more. What is drawn for a matrix depends on the seed and on its name.
    **parameters : float
        The parameters of the edit. `quantile_match` takes `layer`, the layer to match.

    Returns
    -------
    dict of str to float32 array, `[k]` or `[matrices, k]`
        The edited codebook of each chosen matrix by its name in the checkpoint.

    Raises
    ------
    InputError
        If the edit, the correction, a parameter, a layer or a type of matrix does not exist, or if
        the model was not loaded from a clustered directory.

    Notes
    -----
    The cost is a few passes over the ranks of the chosen matrices, one matrix at a time.

    Examples
    --------
    >>> import isotone.study
    >>> codebooks = isotone.study.edited_codebooks(model, "permute", layers=[8])  # doctest: +SKIP
    >>> with isotone.swapped(model, codebooks):  # doctest: +SKIP
    ...     loss = model(tokens, labels=tokens).loss
    """
    _check_edit(edit, correction, at_error, parameters)
    tensors = clustered_tensors(model)
    places = {name: place for name in tensors if (place := MatrixPlace.of(name)) is not None}
    run = _run(list(places.values()), EditChoice(edit, parameters), layers, matrices)
    run = replace(run, correction=correction, at_error=at_error, seed=seed)
    read_layers = {*run.layers, int(parameters.get("layer", run.layers[0]))}
    studied = {
        name: StudiedMatrix.of(name, place, tensors[name]())
        for name, place in places.items()
        if place.layer in read_layers and place.type in run.types
    }
    return {one.matrix.name: one.stored for one in edit_matrices(run, studied)}


def _run(
    places: Sequence[MatrixPlace],
    edit: EditChoice,
    layers: LayerChoice,
    matrices: str | Sequence[str],
) -> StudyRun:
    """Return the run that edits all chosen matrices together, without a correction."""
    where = f"edit {edit.name}"
    globs = (matrices,) if isinstance(matrices, str) else tuple(matrices)
    types = choose_types(globs, places, where)
    check_other(edit, types, places, where)
    return StudyRun(
        grid=edit.name,
        protocol="together",
        k=0,
        layers=choose_layers(layers, places, where),
        types=types,
        edit=edit.name,
        parameters=edit.parameters,
        at_error=None,
        correction="none",
        order=None,
        seed=0,
        tasks=(),
        until=None,
    )


def _check_edit(
    edit: str, correction: str, at_error: float | None, parameters: Mapping[str, float]
) -> None:
    for name, known, what in ((edit, EDITS, "edits"), (correction, CORRECTIONS, "corrections")):
        if name not in known:
            raise InputError(f"{name!r} is none of the {what}; expected one of {', '.join(known)}")
    own = EDITS[edit].plan_parameters
    for name in parameters:
        if name not in own:
            expected = ", ".join(own) or "none"
            raise InputError(f"edit {edit} has no parameter {name!r}; it has {expected}")
    if at_error is not None and not at_error > 0:
        raise InputError(f"at_error is {at_error}; expected more than 0")
