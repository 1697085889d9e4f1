"""Made-up runs whose findings are known by hand."""

from __future__ import annotations

from tests.builders.study_records import N_LAYERS, replaced, times

REPLACED = [
    *replaced([None], correction="none", seed=0),
    *replaced([1.5, 1e6], correction="none", seed=1),
    *replaced([1.2, 1.9, 2.0, 3.0], seed=0),
    *replaced([1.2, 1.4, 1.9, 1.99, 2.5], seed=1),
    *replaced([1.1] * N_LAYERS, seed=2),
]

EQUAL = [
    *(
        times(edit, 1 + cost * error, layer, at_error=error, relative_error=error, spearman=rho)
        for error in (0.1, 0.4)
        for layer in (8, 20)
        for edit, cost, rho in (
            ("power_warp", 1.0, 1.0),
            ("gaussian_noise", 2.0, 0.9),
            ("permute", 5.0, 0.5),
        )
    )
]
