"""These tests run models: they are skipped where PyTorch or transformers is missing."""

from __future__ import annotations

import pytest

from tests.builders.extras import MODELS, missing
from tests.builders.studies import N_RUNS, PLAN, study

collect_ignore_glob = ["*"] if missing(*MODELS) else []


@pytest.fixture(scope="session")
def studied(language_models, tmp_path_factory):
    """Results of PLAN. Not to be written to."""
    results = tmp_path_factory.mktemp("study") / "results"
    summary = study(PLAN, results, language_models)
    assert (summary.n_done, summary.n_total, summary.n_skipped) == (N_RUNS, N_RUNS, 0)
    assert summary.n_measured == N_RUNS + 2
    return results


@pytest.fixture
def studied_model(studied, language_models):
    """The K = 8 clustering, and every run of PLAN on it."""
    from isotone.engine.local import LocalEngine
    from isotone.engine.progress import Silent
    from isotone.study import parse_plan
    from isotone.study.inputs import StudyInputs, places_in
    from isotone.study.protocols import expand
    from isotone.study.studied_model import StudiedModel

    plan = parse_plan(PLAN, "plan", "plan.toml")
    models = language_models
    inputs = StudyInputs.open(
        plan, models.dense, models.text, LocalEngine(), "float32", "cpu", Silent()
    )
    clusterings = inputs.clusterings(studied, LocalEngine(), Silent())
    sequences = expand(plan, list(clusterings), places_in(clusterings[8].manifest))
    runs = [run for sequence in sequences for run in sequence if run.k == 8]
    model = StudiedModel(clusterings[8], 8, inputs.windows, inputs.provenance)
    return model, runs, inputs
