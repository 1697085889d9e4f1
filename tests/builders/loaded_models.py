"""Models that transformers loaded, dense or packed, compared tensor by tensor."""

from __future__ import annotations

import torch

from isotone.models.lazy.deferred import Deferred, dense
from isotone.models.packed.modules import hosts

PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def load(model_class, path, config=None):
    """The model, and what was missing, unexpected or of another shape."""
    options = {} if config is None else {"quantization_config": config}
    model, info = model_class.from_pretrained(path, output_loading_info=True, **options)
    return model, {problem: set(info[problem]) for problem in PROBLEMS}


def assert_equal(model, reference, except_for):
    """The same names, bits, dtypes and ties."""
    values, same = contents(model), contents(reference)
    assert values.keys() == same.keys()
    for name in values.keys() - except_for:
        assert values[name].dtype == same[name].dtype, name
        assert torch.equal(values[name], same[name]), name
    assert ties(model) == ties(reference)


def contents(model):
    """Every parameter and buffer by name, one of packed weights decoded."""
    packed = {name: parameter.deferred() for name, parameter in hosts(model)}
    held = {**packed, **dict(model.named_buffers(remove_duplicate=False))}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if "_clustered." not in name:
            held[name] = parameter
    return {
        name: dense(tensor) if isinstance(tensor, Deferred) else tensor.detach()
        for name, tensor in held.items()
        if "_clustered." not in name
    }


def ties(model):
    """The names of tensors that are one and the same, in groups."""
    packed = dict(hosts(model))
    ordinary = dict(model.named_parameters(remove_duplicate=False))
    ordinary |= dict(model.named_buffers(remove_duplicate=False))
    groups = {}
    for name, tensor in [*packed.items(), *ordinary.items()]:
        if "_clustered." not in name:
            groups.setdefault(id(tensor), set()).add(name)
    return {frozenset(names) for names in groups.values()}
