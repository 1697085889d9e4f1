"""isotone and transformers are imported in any order; without isotone loading says what to do."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

LOAD = """
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(model.dtype)
"""


ORDERS = {
    "isotone first": """
        import sys, isotone
        assert not {"torch", "transformers", "numpy"} & sys.modules.keys()
        from transformers import pipeline, AutoModelForCausalLM
        """,
    "isotone last": """
        import sys
        from transformers import AutoModelForCausalLM, pipeline
        import transformers.modeling_utils
        import isotone
        """,
    "the config first": """
        import sys, isotone
        isotone.IsotoneConfig
        from transformers import AutoModelForCausalLM
        """,
    "no isotone": """
        import sys
        from transformers import AutoModelForCausalLM
        """,
}


@pytest.fixture(scope="module")
def runs(roundtrips):
    """What each order came to: exit code, stdout, stderr. They run at the same time."""
    _, out, _ = roundtrips("llama-tied")
    started = {
        order: subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code) + LOAD, str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for order, code in ORDERS.items()
    }
    return {
        order: (*run.communicate(timeout=240), run.returncode) for order, run in started.items()
    }


@pytest.mark.parametrize("order", list(ORDERS)[:-1])
def test_any_import_order(order, runs):
    out, err, code = runs[order]
    assert (out.strip(), code) == ("torch.bfloat16", 0), err


def test_without_isotone_loading_fails_and_says_what_to_do(runs):
    out, err, code = runs["no isotone"]
    assert (out, code) == ("", 1)
    last = err.strip().splitlines()[-1]
    assert last.startswith("ValueError")
    assert "`import isotone` before loading" in last
    assert "pip install 'isotone[models]'" in last


def test_every_nested_config_says_so_too():
    from isotone.checkpoint.compressed.config import NOTICE, compressed_config, dense_config

    config = {"model_type": "a", "text_config": {"model_type": "b", "rope": {"x": 1}}, "dtype": "x"}
    marked = compressed_config(config, [])
    assert marked["transformers_weights"] == marked["text_config"]["transformers_weights"] == NOTICE
    assert "transformers_weights" not in marked["text_config"]["rope"]
    assert dense_config(marked) == config
