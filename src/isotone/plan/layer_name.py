"""Names of tensors in the layers of a model, taken apart without knowing the architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass

_IN_LAYER = re.compile(r"^(?P<stack>.*?)\.(?P<layer>\d+)\.(?P<inner>.+?)(\.weight)?$")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class LayerName:
    """The parts of a name such as `model.layers.3.self_attn.q_proj.weight`.

    Attributes
    ----------
    stack : str
        What comes before the number of the layer: `model.layers`.
    layer : int
        The number of the layer, from 0.
    inner : str
        What the tensor is called within the layer, without `.weight`: `self_attn.q_proj`.
    """

    stack: str
    layer: int
    inner: str

    @classmethod
    def of(cls, name: str) -> LayerName | None:
        """Take a name apart at its first number.

        Parameters
        ----------
        name : str

        Returns
        -------
        LayerName or None
            None for a tensor outside of the layers, such as an embedding.

        Examples
        --------
        >>> LayerName.of("model.layers.3.mlp.experts.7.up_proj.weight")
        LayerName(stack='model.layers', layer=3, inner='mlp.experts.7.up_proj')
        >>> LayerName.of("lm_head.weight") is None
        True
        """
        found = _IN_LAYER.match(name)
        return found and cls(found["stack"], int(found["layer"]), found["inner"])

    @property
    def type(self) -> str:
        """The inner name, which all experts share: `mlp.experts.*.up_proj`."""
        return _NUMBER.sub("*", self.inner)
