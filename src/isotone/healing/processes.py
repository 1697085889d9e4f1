"""Several processes of one training: what one of them finds out, all of them know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from isotone.errors import IsotoneError

Found = TypeVar("Found")


def agreed(accelerator: Accelerator, find: Callable[[], Found]) -> Found:
    """What the main process finds, in every process; where it finds an error, all raise it.

    find: called in the main process only; its result must be picklable. Without that, the others
    would wait for a process that has ended.
    """
    if accelerator.num_processes == 1:
        return find()
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = find()
        except IsotoneError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    found: Found = outcome[0]
    return found
