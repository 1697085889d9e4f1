"""Writes of transformers' loader to a weight that is not read yet are done when it is."""

from __future__ import annotations

import pickle

import pytest
import torch

from isotone.errors import InputError
from isotone.models.lazy.expression import Expression
from isotone.models.lazy.loading_tensor import Loading


class Leaf:
    """A weight that counts how often it is decoded."""

    name, device, dtype = "w", torch.device("cpu"), torch.float32

    def __init__(self):
        self.values, self.n_decoded = torch.arange(24.0).reshape(6, 4), 0
        self.shape = self.values.shape

    def to(self, _device):
        return self

    def __call__(self):
        self.n_decoded += 1
        return self.values.clone()


WRITES = {
    "all": lambda w: w.fill_(7),
    "a row": lambda w: torch.nn.init.zeros_(w[2]),
    "a row of the data": lambda w: w.data[2].zero_(),
    "a row of what is detached": lambda w: w.detach()[2].zero_(),
    "an assignment": lambda w: w.__setitem__((slice(None), 1), -1.0),
    "a copy": lambda w: w[1:3].copy_(torch.ones(2, 4)),
    "a view of a view": lambda w: w[1:5][::2].t()[0].mul_(3),
    "a view of another shape": lambda w: w.view(4, 6)[0].neg_(),
    "two writes": lambda w: (w[0].zero_(), w[:, 0].add_(1)),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_while_loading_is_done_when_the_weight_is_decoded(name):
    leaf, expected = Leaf(), torch.nn.Parameter(Leaf()())
    weight = torch.nn.Parameter(Loading(Expression.of(leaf)))
    with torch.no_grad():
        WRITES[name](weight)
        WRITES[name](expected)
    assert leaf.n_decoded == 0
    assert not torch.equal(expected, leaf.values)
    assert torch.equal(weight.source.evaluate(), expected)
    assert torch.equal(weight.source.evaluate(), expected)
    assert [each is leaf for each in weight.source.leaves()] == [True]
    assert torch.equal(pickle.loads(pickle.dumps(weight.source)).evaluate(), expected)


@pytest.mark.parametrize("make", [lambda w: w[[0, 2]], lambda w: w + 0, lambda w: w.clone()])
def test_a_write_to_a_copy_leaves_the_weight(make):
    leaf = Leaf()
    weight = torch.nn.Parameter(Loading(Expression.of(leaf)))
    with torch.no_grad():
        part = make(weight).zero_()
    assert torch.equal(weight.source.evaluate(), leaf.values)
    assert not part.source.evaluate().any()


def test_other_values_in_the_place_of_a_weight_are_refused():
    weight = torch.nn.Parameter(Loading(Expression.of(Leaf())))
    with pytest.raises(InputError, match=r"an assignment would write to a packed weight"):
        weight.data = torch.zeros(6, 4)
