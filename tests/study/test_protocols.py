"""What plans come to on models of any depth: the runs, and what the model does not have."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.errors import InputError
from isotone.study.edits import EDITS
from isotone.study.plan import parse_plan, plans, read_plan
from isotone.study.protocols import MatrixPlace, expand

TYPES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj")
GRID = '[[grid]]\nprotocol = "layer"\nedits = ["permute"]\n'


def places(n_layers, types=TYPES):
    return [MatrixPlace(layer, type_) for layer in range(n_layers) for type_ in types]


def runs(text, n_layers=4, k=(16,)):
    sequences = expand(parse_plan(text, "plan", "plan.toml"), k, places(n_layers))
    return [run for sequence in sequences for run in sequence]


@pytest.mark.parametrize("name", plans())
@pytest.mark.parametrize("n_layers", [1, 2, 5, 30, 126])
def test_plans_that_ship_fit_every_depth(name, n_layers):
    plan = read_plan(name)
    sequences = expand(plan, plan.k, places(n_layers))
    found = [repr(run) for sequence in sequences for run in sequence]
    assert found
    assert len(set(found)) == len(found), "a run is there twice"
    assert {run.k for sequence in sequences for run in sequence} <= set(plan.k)


def test_protocols_edit_what_they_say():
    assert [run.layers for run in runs(GRID)] == [(0,), (1,), (2,), (3,)]
    assert {run.types for run in runs(GRID)} == {TYPES}
    by_type = runs(GRID.replace("layer", "type"))
    assert [(run.layers, run.types) for run in by_type] == [((0, 1, 2, 3), (t,)) for t in TYPES]
    (together,) = runs(GRID.replace("layer", "together") + 'layers = [1, -1]\nmatrices = "mlp.*"')
    assert (together.layers, together.types) == ((1, 3), ("mlp.up_proj",))


def test_progressive_replacement_goes_from_one_end_or_at_random():
    grid = GRID.replace("layer", "progressive") + "seeds = 2\nuntil = 3\n"
    found = {}
    for run in runs(grid):
        found.setdefault((run.order, run.seed), []).append(run.layers)
        assert run.until == 3.0
    assert found["first", 0] == [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)] == found["first", 1]
    assert found["last", 0] == [(3,), (3, 2), (3, 2, 1), (3, 2, 1, 0)]
    for seed in (0, 1):
        order = found["random", seed][-1]
        assert sorted(order) == [0, 1, 2, 3]
        assert found["random", seed] == [order[:n] for n in (1, 2, 3, 4)]
    some = runs(grid + "steps = [1, 3, 9]\norders = 'last'")
    assert [run.layers for run in some] == 2 * [(3,), (3, 2, 1)]


def test_where_nothing_is_drawn_one_seed_stands_for_all():
    grid = GRID.replace('"permute"', '"reverse", "permute"') + "layers = [2]\nseeds = [4, 7]\n"
    assert [(run.edit, run.seed) for run in runs(grid)] == [
        ("reverse", 4),
        ("permute", 4),
        ("permute", 7),
    ]


def test_lists_of_parameters_errors_and_corrections_make_a_grid():
    grid = GRID.replace('["permute"]', '[{edit = "jittered_gaps", strength = [0.5, 1]}]')
    grid += 'layers = [0]\ncorrections = ["none", "range"]\nat_error = [0.1, 0.2]\n'
    found = [(r.parameters["strength"], r.correction, r.at_error) for r in runs(grid)]
    assert found == [(s, c, e) for s in (0.5, 1.0) for c in ("none", "range") for e in (0.1, 0.2)]


def test_spread_layers_reach_both_ends():
    for n in (1, 2, 3, 7, 99):
        layers = [run.layers[0] for run in runs(GRID + f"layers = {{spread = {n}}}", n_layers=30)]
        assert len(layers) == len(set(layers)) == min(n, 30)
        assert layers[0] == 0
        if n > 1:
            assert layers[-1] == 29
            assert np.ptp(np.diff(layers)) <= 1


def test_runs_of_one_clustering_stand_together():
    found = [
        run.k
        for run in runs(
            "[clustering]\nk = [8, 16]\n" + GRID + GRID.replace('"layer"', '"type"'), k=(8, 16)
        )
    ]
    assert found == sorted(found)
    only = runs("[clustering]\nk = [8, 16]\n" + GRID + "k = 16", k=(8, 16))
    assert {run.k for run in only} == {16}


def test_names_of_tensors_tell_layer_and_type():
    assert MatrixPlace.of("model.layers.11.mlp.down_proj.weight") == MatrixPlace(
        11, "mlp.down_proj"
    )
    assert MatrixPlace.of("transformer.h.0.attn.c_attn.weight") == MatrixPlace(0, "attn.c_attn")
    assert (
        MatrixPlace.of("model.layers.3.mlp.experts.7.up_proj.weight").type
        == "mlp.experts.*.up_proj"
    )
    assert (
        MatrixPlace.of("model.layers.3.mlp.experts.gate_up_proj").type == "mlp.experts.gate_up_proj"
    )
    assert MatrixPlace.of("model.embed_tokens.weight") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GRID + "layers = [4]", "no layer 4"),
        (GRID + "layers = [-5]", "no layer -5"),
        (GRID + "matrices = ['mlp.gate']", "matches none of the matrices"),
        (GRID + "k = 32", "no clustering with k = 32"),
    ],
)
def test_what_the_model_does_not_have_is_refused(text, said):
    with pytest.raises(InputError, match="grid 'layer'") as refused:
        runs(text)
    assert said in str(refused.value)


def test_a_model_without_layers_is_refused():
    with pytest.raises(InputError, match="nothing to study"):
        expand(parse_plan(GRID, "plan", "plan.toml"), [16], [])


def test_every_edit_can_be_named_in_a_plan():
    for name, kind in EDITS.items():
        values = dict.fromkeys(kind.plan_parameters, 1)
        inline = ", ".join(f"{key} = {value}" for key, value in values.items())
        edit = f'{{edit = "{name}"{", " if inline else ""}{inline}}}'
        for run in runs(GRID.replace('"permute"', edit)):
            assert run.edit == name
            assert run.parameters == values
