"""Several processes of one training: what each of them works on, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from isotone.errors import IsotoneError
from isotone.models.text import Tokens

Found = TypeVar("Found")


def agreed(accelerator: Accelerator, find: Callable[[], Found]) -> Found:
    """Return in every process what the main process finds; an error there is raised in all.

    Without that, the other processes would wait for one that has ended.

    Parameters
    ----------
    accelerator : Accelerator
        The processes.
    find : callable
        Called in the main process only; its result must be picklable if there are others.

    Returns
    -------
    object
        The result of `find`.
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


def own_windows(
    accelerator: Accelerator, windows: Tokens, device: torch.device
) -> Iterator[torch.Tensor]:
    """Yield the windows that this process works on, one at a time.

    Parameters
    ----------
    accelerator : Accelerator
        The processes.
    windows : int64 array, `[n, C]`
        The windows of all processes.
    device : torch.device
        Where this process works.

    Yields
    ------
    int64 tensor, `[1, C]`
        One window.
    """
    for window in windows[accelerator.process_index :: accelerator.num_processes]:
        yield torch.from_numpy(window).unsqueeze(0).to(device)


def summed(accelerator: Accelerator, values: torch.Tensor) -> torch.Tensor:
    """Return the sum of tensors over the processes.

    Parameters
    ----------
    accelerator : Accelerator
        The processes.
    values : tensor
        The tensor of this process, of the same shape in all.

    Returns
    -------
    tensor
        The sum; with one process `values` itself.
    """
    if accelerator.num_processes == 1:
        return values
    total: torch.Tensor = accelerator.reduce(values, "sum")
    return total


def share_gradients(
    accelerator: Accelerator,
    parameters: Sequence[torch.nn.Parameter],
    others: Sequence[torch.Tensor],
) -> None:
    """Sum gradients over the processes in place, all in one message.

    Parameters
    ----------
    accelerator : Accelerator
        The processes.
    parameters : sequence of Parameter
        The parameters whose gradients are summed.
    others : sequence of tensor
        Gradients that are no parameter's.
    """
    if accelerator.num_processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # This process had no window.
            parameter.grad = torch.zeros_like(parameter)
    gradients = [*(parameter.grad for parameter in parameters), *others]
    flat = summed(accelerator, torch.cat([gradient.reshape(-1) for gradient in gradients]))
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, part in zip(gradients, flat.split(sizes), strict=True):
        gradient.copy_(part.view(gradient.shape))
