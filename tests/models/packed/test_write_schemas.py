"""Every operator of torch that says in its schema that it writes is refused on a packed weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isotone.errors import InputError
from tests.builders.tiny_models import load_clustered

SIDE = 32  # of the weight: that of the tiny model's q_proj
PLAIN = {
    "Tensor": lambda: torch.ones(SIDE, SIDE),
    "number": lambda: 1.0,
    "int": lambda: 0,
    "float": lambda: 0.5,
    "bool": lambda: False,
    "List[int]": lambda: [SIDE, SIDE],
    "List[Tensor]": lambda: [torch.ones(SIDE, SIDE)],
}


def writing_operators():
    """Every operator of ATen that writes to an argument, but for internal ones."""
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        packet, _, overload = name.removeprefix("aten::").partition(".")
        if not name.startswith("aten::") or packet.startswith("_"):
            continue
        operator = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        if operator is not None and operator._schema.is_mutable:
            yield operator


def is_written(argument):
    return argument.alias_info is not None and argument.alias_info.is_write


def call(operator, written):
    """Call an operator with plain values, and `written` wherever it writes to a tensor."""
    positional, named = [], {}
    for argument in operator._schema.arguments:
        kind = str(argument.type)
        if is_written(argument):
            value = [written()] if kind == "List[Tensor]" else written()
        elif argument.has_default_value():
            value = argument.default_value
        else:
            value = PLAIN[kind]() if kind in PLAIN else None
        if argument.kwarg_only:
            named[argument.name] = value
        else:
            positional.append(value)
    with torch.no_grad():
        operator(*positional, **named)


def runs(operator):
    """Whether an operator runs on a dense weight with plain values for its other arguments."""
    try:
        call(operator, PLAIN["Tensor"])
    except Exception:
        return False
    return True


@pytest.fixture(scope="module")
def layer(compressed):
    model = load_clustered(compressed("llama-untied"), dtype=torch.float32)
    return model.model.layers[0].self_attn.q_proj


@pytest.mark.filterwarnings("ignore")
def test_every_operator_that_writes_is_refused(layer):
    before = layer.weight.clone()
    tried, written = 0, []
    for operator in filter(runs, writing_operators()):
        tried += 1
        try:
            call(operator, lambda: layer.weight)
            written.append(str(operator))
        except InputError:
            pass
    assert tried > 500
    assert written == []
    assert torch.equal(layer.weight, before)


@torch.library.custom_op("isotone_tests::halve", mutates_args=("tensor",))
def halve(tensor: torch.Tensor) -> None:
    tensor.mul_(0.5)


OTHERS = {
    "an operator of somebody else": lambda w: halve(w),
    "a view given to one": lambda w: halve(w[1:3].t()),
    "a fused optimizer": lambda w: torch._fused_sgd_(
        [w],
        [torch.ones(w.shape)],
        [],
        weight_decay=0.0,
        momentum=0.0,
        lr=1.0,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=True,
    ),
    "one of several": lambda w: torch._foreach_zero_([torch.ones(2), w]),
    "one of several outputs": lambda w: torch.max(
        torch.ones(SIDE, SIDE), 1, out=(w[:, 0], torch.zeros(SIDE, dtype=torch.long))
    ),
    "a function of each element": lambda w: w.apply_(lambda _: 0.0),
    "a function of two elements": lambda w: w.map_(torch.ones(w.shape), lambda *_: 0.0),
    "memory": lambda w: w.untyped_storage().fill_(0),
    "memory of a view": lambda w: w[1].untyped_storage().fill_(0),
    "memory of old": lambda w: w.storage(),
    "shared memory": lambda w: w.share_memory_(),
    "DLPack": lambda w: torch.from_dlpack(w).zero_(),
    "DLPack of detached": lambda w: torch.from_dlpack(w.detach()).zero_(),
    "under vmap": lambda w: torch.vmap(lambda row: row.zero_())(w),
    "training": lambda w: w.requires_grad_(True),
    "training by name": lambda w: w.requires_grad_(requires_grad=True),
    "training by attribute": lambda w: setattr(w, "requires_grad", True),
    "a parameter of it": nn.Parameter,
    "a vector": lambda w: nn.utils.vector_to_parameters(torch.zeros(w.numel()), [w]),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
@pytest.mark.parametrize("write", OTHERS)
def test_ways_beside_operators_are_refused(layer, write):
    with pytest.raises(InputError, match=r"residency=.dense.*isotone\.swapped"):
        OTHERS[write](layer.weight)


def test_it_may_be_asked_not_to_be_trained(layer):
    assert layer.weight.requires_grad_(False) is not None
    layer.weight.requires_grad = False


ASSIGNED = {
    "a tensor": lambda layer: setattr(layer, "weight", torch.zeros(SIDE, SIDE)),
    "nothing": lambda layer: setattr(layer, "weight", None),
    "under another name": lambda layer: layer.register_parameter("weight_orig", layer.weight),
    "a call with another": lambda layer: torch.func.functional_call(
        layer, {"weight": torch.zeros(SIDE, SIDE)}, torch.ones(1, SIDE)
    ),
}


@pytest.mark.parametrize("way", ASSIGNED)
def test_assignments_to_the_attribute_are_refused(layer, way):
    with pytest.raises(InputError, match=r"residency=.dense.*isotone\.swapped"):
        ASSIGNED[way](layer)


def test_a_dense_state_goes_in_if_it_is_the_same(compressed):
    packed = load_clustered(compressed("llama-tied"), dtype=torch.float32)
    state = load_clustered(compressed("llama-tied"), "dense", dtype=torch.float32).state_dict()
    packed.load_state_dict(state)
    state["model.layers.1.mlp.up_proj.weight"] = torch.zeros(64, 32)
    with pytest.raises(InputError, match=r"load_state_dict.*residency=.dense"):
        packed.load_state_dict(state, strict=False)


def test_tied_by_hand_they_share_their_ranks(compressed):
    model = load_clustered(compressed("llama-untied"))
    head, embedding = model.lm_head, model.model.embed_tokens
    assert head.weight.data_ptr() != embedding.weight.data_ptr()
    head.weight = embedding.weight
    assert head.weight.data_ptr() == embedding.weight.data_ptr()
    assert torch.equal(head.weight, embedding.weight)


def test_without_its_weight_a_layer_is_ordinary(compressed):
    head = load_clustered(compressed("llama-untied")).lm_head
    del head.weight
    assert type(head) is nn.Linear
    assert not hasattr(head, "weight")
    head.weight = nn.Parameter(torch.zeros(160, 32))
    assert list(head.state_dict()) == ["weight"]
