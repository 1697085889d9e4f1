"""Changes of a codebook, those that keep the order of its centroids and those that break it.

`kind` says what an edit is. The edits themselves stand in `order_kept`, `order_broken` and
`controls`, and the affine corrections that may follow one in `corrections`.
"""

from __future__ import annotations

from isotone.study.edits import controls, order_broken, order_kept
from isotone.study.edits.kind import EditKind

EDITS: dict[str, EditKind] = {**order_kept.KINDS, **order_broken.KINDS, **controls.KINDS}
"""Every kind of edit by its name."""
