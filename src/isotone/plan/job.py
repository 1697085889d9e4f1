"""The one planner: what compressing a model does to each of its tensors, and in which files.

`compress`, `calibrate` and `schedule` all plan here, so that they agree on what is clustered. A
model is opened once by the caller, and its tied tensors are found once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from isotone.checkpoint.source.source import Source
from isotone.plan.settings import Selection
from isotone.plan.shards import Shard, plan_shards
from isotone.plan.tensors import Clustered, TensorPlan, Tied, plan_tensors
from isotone.plan.tied import find_tied


@dataclass(frozen=True)
class JobPlan:
    """The plan of one job.

    Attributes
    ----------
    source : Source
        The model.
    tied_to : mapping of str to str
        For each tensor that repeats another one, the name of the other.
    tensors : tuple of Clustered, Kept or Tied
        What happens to each tensor, in the order of the source.
    """

    source: Source
    tied_to: Mapping[str, str]
    tensors: tuple[TensorPlan, ...]

    @cached_property
    def clustered(self) -> list[Clustered]:
        """The tensors that are clustered."""
        return [plan for plan in self.tensors if isinstance(plan, Clustered)]

    @cached_property
    def tied(self) -> list[Tied]:
        """The tensors that are stored under the name of another one."""
        return [plan for plan in self.tensors if isinstance(plan, Tied)]

    @cached_property
    def shards(self) -> list[Shard]:
        """The files of the output."""
        return plan_shards(self.tensors)

    @property
    def groups(self) -> list[tuple[Clustered, ...]]:
        """The clustered tensors of each shard that has any: what one worker takes as one task."""
        return [shard.clustered for shard in self.shards if shard.clustered]

    def changed(self, change: Callable[[Clustered], Clustered]) -> JobPlan:
        """Return the plan with other settings of its clustered tensors.

        Parameters
        ----------
        change : callable
            Takes a clustered tensor and returns it with other settings.

        Returns
        -------
        JobPlan
            The changed plan, with the same shards.
        """
        tensors = (change(plan) if isinstance(plan, Clustered) else plan for plan in self.tensors)
        return replace(self, tensors=tuple(tensors))


def plan_job(
    source: Source, selection: Selection, tied_to: Mapping[str, str] | None = None
) -> JobPlan:
    """Plan what happens to each tensor of a model.

    Parameters
    ----------
    source : Source
        The model, opened.
    selection : Selection
        Which tensors are clustered, and how.
    tied_to : mapping of str to str, optional
        For each tensor that repeats another one, the name of the other. By default this is found
        in the source, see `find_tied`.

    Returns
    -------
    JobPlan
        The plan.

    Raises
    ------
    InputError
        If the selection does not fit the model, see `plan_tensors`.
    """
    if tied_to is None:
        tied_to = find_tied(source)
    return JobPlan(source, tied_to, tuple(plan_tensors(source, selection, tied_to)))
