"""Methods are found by name: those of isotone, and those that other packages bring."""

from __future__ import annotations

import importlib.metadata
import pickle
from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import pytest

from isotone import entry_points as extensions
from isotone.core.clustering import method
from isotone.core.clustering.entropy import EntropyMethod
from isotone.core.clustering.kmeans import KMeansMethod
from isotone.core.clustering.method import (
    Assigned,
    MethodSettings,
    method_named,
    method_names,
    register_method,
)
from isotone.core.clustering.outliers import Protection
from isotone.core.fit import fit
from isotone.core.float_format import FloatFormat
from isotone.core.matrix import Matrix
from isotone.core.rate import MatrixRate
from isotone.core.scales.balancing import ScaleRule
from isotone.errors import InputError
from tests.builders.histograms import histogram_of

AUTO, OFF = Protection(), Protection.parse("off")


class OneValue:
    """All weights as their mean."""

    def assign(self, histogram, rate, unit=None, split=None):  # noqa: ARG002
        return Assigned.whole(histogram)


def one_value(settings):
    assert settings.k
    return OneValue()


@pytest.fixture(autouse=True)
def own_register(monkeypatch):
    """A register of isotone's own methods; what a test adds to it is forgotten after the test."""
    own = {name: method._FACTORIES[name] for name in ("entropy", "kmeans")}
    monkeypatch.setattr(method, "_FACTORIES", own)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Names a module under the entry point, as if a package with that source were installed."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        entries = EntryPoints([EntryPoint("mean", name, "isotone.methods")])
        monkeypatch.setattr(extensions, "entry_points", entries.select)
        extensions.import_extensions.cache_clear()

    yield install
    extensions.import_extensions.cache_clear()


REGISTERS = f"""
from isotone.core.clustering.method import register_method
from {__name__} import one_value
register_method("mean")(one_value)
"""


def test_isotone_has_two_methods_which_follow_the_settings():
    assert method_names() == ["entropy", "kmeans"]
    assert method_named("kmeans")(MethodSettings(7, OFF)) == KMeansMethod(7, OFF)
    assert method_named("kmeans")(MethodSettings(7, OFF, 0.1)) == KMeansMethod(7, OFF)
    assert method_named("entropy")(MethodSettings(7, OFF, 0.1)) == EntropyMethod(0.1, 7, False)
    assert method_named("entropy")(MethodSettings(7, AUTO, 0.1)) == EntropyMethod(0.1, 7, True)


def test_entropy_needs_a_lambda():
    with pytest.raises(InputError, match="entropy was given no λ"):
        method_named("entropy")(MethodSettings(7, OFF))


def test_an_unknown_name_is_refused_with_the_names_that_are_known(installed):
    installed("mean_of_all", REGISTERS)
    with pytest.raises(InputError, match="'k-means'; expected one of entropy, kmeans, mean"):
        method_named("k-means")
    assert method_names() == ["entropy", "kmeans", "mean"]


def test_a_method_of_another_package_is_imported_when_it_is_asked_for(installed):
    installed("mean_when_asked_for", REGISTERS)
    assert method_named("kmeans")(MethodSettings(7, OFF)).k == 7
    assert "mean" not in method._FACTORIES
    assert isinstance(method_named("mean")(MethodSettings(7, OFF)), OneValue)


def test_a_package_that_does_not_import_is_named(installed):
    installed("broken_mean", "import nothing_of_this_name")
    assert method_named("kmeans") is not None
    with pytest.raises(InputError, match=r"broken_mean: the method 'mean' .* uninstall that pack"):
        method_named("mean")


def test_a_registered_method_clusters_a_matrix():
    register_method("mean")(one_value)
    bits = np.float32([1, 2, 6]).view(np.uint32)
    matrix = Matrix(lambda: (bits,), (1, 3), FloatFormat.F32, "x")
    found = fit(matrix, ScaleRule.NONE, method_named("mean")(MethodSettings(7, OFF)))
    assert found.codebook.tolist() == [3.0]
    assert found.counts.tolist() == [3]


@pytest.mark.parametrize("name", ["entropy", "kmeans"])
def test_methods_pickle(name):
    made = method_named(name)(MethodSettings(3, OFF, 0.1))
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    histogram, rate = histogram_of({0: 3, 1: 9, 7: 2, 8: 2}), MatrixRate(16, 1)
    one, other = made.assign(histogram, rate), again.assign(histogram, rate)
    assert np.array_equal(one.codebook, other.codebook)


def test_entry_points_are_those_of_the_standard_library():
    assert extensions.entry_points is importlib.metadata.entry_points
