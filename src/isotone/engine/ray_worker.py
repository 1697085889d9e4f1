"""The worker that runs on a node of a cluster; Ray makes an actor of it."""

from __future__ import annotations

import pickle
import socket
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, TypeVar

from isotone.engine.progress import Silent
from isotone.engine.tasks import Work
from isotone.errors import FormatError, InputError, IsotoneError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Done(Generic[Result]):
    """The result of a task, and by how much the task advanced.

    Attributes
    ----------
    result : object
        What the worker returned.
    n_advanced : int
        The units that the task counted.
    """

    result: Result
    n_advanced: int


@dataclass(frozen=True)
class Failed:
    """Why a task cannot be done on any node.

    Attributes
    ----------
    message : str
        The error's message.
    node : str
        The host name of the node that reports it.
    is_format : bool
        Whether it is a FormatError; otherwise it is an InputError.
    """

    message: str
    node: str
    is_format: bool

    def error(self) -> IsotoneError:
        """Return the error to raise in the process of the user."""
        kind = FormatError if self.is_format else InputError
        return kind(f"{self.message} (on node {self.node})")


class Worker:
    """Does one task at a time, and says meanwhile how far it is; prepares at the first task.

    Parameters
    ----------
    pickled : bytes
        A function that prepares a worker, and its arguments.
    isotone : str
        The version of isotone in the process of the user.
    """

    def __init__(self, pickled: bytes, isotone: str) -> None:
        self._pickled, self._isotone = pickled, isotone
        self._work: Work[Any, Any] | None = None
        self._progress = _Count()

    def ready(self) -> None:
        """Return once the worker has started."""

    def do(self, task: Any) -> Done[Any] | Failed:  # noqa: ANN401 (a Task)
        """Do a task.

        Parameters
        ----------
        task : object
            The task.

        Returns
        -------
        Done or Failed
            The result, or an error that the user can repair. Anything that is raised is a defect
            of isotone.
        """
        self._progress = _Count()
        try:
            if self._work is None:
                self._refuse_other_version()
                prepare, arguments = pickle.loads(self._pickled)  # written by the driver
                self._work = prepare(*arguments)
            result = self._work(task, self._progress)
        except (IsotoneError, OSError) as error:
            message = str(error)
            if isinstance(error, OSError):
                message = f"{error.filename or 'a file'}: {error.strerror or error}"
            return Failed(message, socket.gethostname(), isinstance(error, FormatError))
        return Done(result, self._progress.n)

    def _refuse_other_version(self) -> None:
        if version("isotone") != self._isotone:
            raise InputError(
                f"isotone {version('isotone')} is installed, and {self._isotone} where the command "
                "was started; install the same version on all nodes"
            )

    def n_advanced(self) -> int:
        """Return by how much the present task has advanced."""
        return self._progress.n


class _Count(Silent):
    """Adds up what a task advances, until the task begins a stage of its own."""

    def __init__(self) -> None:
        self.n = 0
        self._is_own = False

    def begin(self, what: str, total: int, unit: str = "bytes") -> None:  # noqa: ARG002
        self._is_own = True

    def advance(self, n: int) -> None:
        if not self._is_own:
            self.n += n
