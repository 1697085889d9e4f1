"""isotone: weight clustering for language models.

Importing isotone is quick: it imports neither torch nor transformers, and each public name is
imported when it is first used. It also makes sure that transformers, imported before or after,
loads directories that isotone compressed:

    import isotone
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("out")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from isotone.models.plugin.registration import register_when_imported

if TYPE_CHECKING:  # the same names as in _MODULES, for type checkers and editors
    from isotone import study as study
    from isotone.checkpoint.files.tensor_info import TensorInfo as TensorInfo
    from isotone.checkpoint.source.registry import register_source as register_source
    from isotone.checkpoint.source.source import CompanionFile as CompanionFile
    from isotone.checkpoint.source.source import Source as Source
    from isotone.core.cluster import cluster as cluster
    from isotone.core.clustered_tensor import ClusteredTensor as ClusteredTensor
    from isotone.core.clustering.method import Assigned as Assigned
    from isotone.core.clustering.method import Method as Method
    from isotone.core.clustering.method import MethodSettings as MethodSettings
    from isotone.core.clustering.method import register_method as register_method
    from isotone.core.histogram import Histogram as Histogram
    from isotone.core.rate import MatrixRate as MatrixRate
    from isotone.core.values import Values as Values
    from isotone.errors import FormatError as FormatError
    from isotone.errors import InputError as InputError
    from isotone.errors import IsotoneError as IsotoneError
    from isotone.errors import MissingExtraError as MissingExtraError
    from isotone.evaluation.frontier.results import FrontierPoint as FrontierPoint
    from isotone.evaluation.frontier.sweep import frontier as frontier
    from isotone.evaluation.frontier.variants import FrontierVariant as FrontierVariant
    from isotone.evaluation.frontier.variants import frontier_variants as frontier_variants
    from isotone.evaluation.generate import Generation as Generation
    from isotone.evaluation.generate import generate as generate
    from isotone.evaluation.run import Evaluation as Evaluation
    from isotone.evaluation.run import evaluate as evaluate
    from isotone.healing.result import Healing as Healing
    from isotone.healing.run import heal as heal
    from isotone.healing.settings import HealSettings as HealSettings
    from isotone.models.plugin.config import IsotoneConfig as IsotoneConfig
    from isotone.models.swap import swapped as swapped
    from isotone.pipeline.calibrate import CalibrateSummary as CalibrateSummary
    from isotone.pipeline.calibrate import calibrate as calibrate
    from isotone.pipeline.compress import compress as compress
    from isotone.pipeline.decompress import DecompressSummary as DecompressSummary
    from isotone.pipeline.decompress import decompress as decompress
    from isotone.pipeline.inspect import Inspection as Inspection
    from isotone.pipeline.inspect import inspect as inspect
    from isotone.pipeline.summary import CompressSummary as CompressSummary
    from isotone.pipeline.verify import Verification as Verification
    from isotone.pipeline.verify import verify as verify
    from isotone.reporting.report import Report as Report
    from isotone.reporting.report import report as report

_MODULES = {
    "isotone.checkpoint.files.tensor_info": ("TensorInfo",),
    "isotone.checkpoint.source.registry": ("register_source",),
    "isotone.checkpoint.source.source": ("CompanionFile", "Source"),
    "isotone.core.cluster": ("cluster",),
    "isotone.core.clustered_tensor": ("ClusteredTensor",),
    "isotone.core.clustering.method": ("Assigned", "Method", "MethodSettings", "register_method"),
    "isotone.core.histogram": ("Histogram",),
    "isotone.core.rate": ("MatrixRate",),
    "isotone.core.values": ("Values",),
    "isotone.errors": ("FormatError", "InputError", "IsotoneError", "MissingExtraError"),
    "isotone.evaluation.frontier.results": ("FrontierPoint",),
    "isotone.evaluation.frontier.sweep": ("frontier",),
    "isotone.evaluation.frontier.variants": ("FrontierVariant", "frontier_variants"),
    "isotone.evaluation.generate": ("Generation", "generate"),
    "isotone.evaluation.run": ("Evaluation", "evaluate"),
    "isotone.healing.result": ("Healing",),
    "isotone.healing.run": ("heal",),
    "isotone.healing.settings": ("HealSettings",),
    "isotone.models.plugin.config": ("IsotoneConfig",),
    "isotone.models.swap": ("swapped",),
    "isotone.pipeline.calibrate": ("CalibrateSummary", "calibrate"),
    "isotone.pipeline.compress": ("compress",),
    "isotone.pipeline.decompress": ("DecompressSummary", "decompress"),
    "isotone.pipeline.inspect": ("Inspection", "inspect"),
    "isotone.pipeline.summary": ("CompressSummary",),
    "isotone.pipeline.verify": ("Verification", "verify"),
    "isotone.reporting.report": ("Report", "report"),
}
"""The public names by the module that defines each of them."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", "study", *_HOMES]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever the name stands for)
    """Import a public name when it is first used (PEP 562)."""
    value: Any
    if name == "__version__":
        from importlib.metadata import version

        value = version("isotone")
    elif name == "study":
        value = import_module("isotone.study")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'isotone' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
