"""What runs on a node of a cluster. Knows nothing of Ray, which makes an actor of it."""

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
    """What a task resulted in, and by how much it advanced."""

    result: Result
    n_advanced: int


@dataclass(frozen=True)
class Failed:
    """Why a task cannot be done anywhere, as its node saw it."""

    message: str
    node: str
    is_format: bool

    def error(self) -> IsotoneError:
        """The same, to be raised where the user sees it."""
        kind = FormatError if self.is_format else InputError
        return kind(f"{self.message} (on node {self.node})")


class Worker:
    """Prepares at its first task, and does one at a time; may be asked meanwhile how far it is."""

    def __init__(self, pickled: bytes, isotone: str) -> None:
        """pickled: a function that prepares a worker, and its arguments. isotone: its version."""
        self._pickled, self._isotone = pickled, isotone
        self._work: Work[Any, Any] | None = None
        self._progress = _Count()

    def ready(self) -> None:
        """Returns once there is such a worker."""

    def do(self, task: Any) -> Done[Any] | Failed:  # noqa: ANN401 (a Task)
        """Do a task. What users can mend is a result; what is raised is a defect."""
        self._progress = _Count()
        try:
            if self._work is None:
                self._refuse_other_version()
                prepare, arguments = pickle.loads(self._pickled)  # from the driver
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
                "was started; install the same"
            )

    def n_advanced(self) -> int:
        """By how much the present task has advanced."""
        return self._progress.n


class _Count(Silent):
    """Adds up what advances the stage of the caller; stages that a task begins are its own."""

    def __init__(self) -> None:
        self.n = 0
        self._is_own = False

    def begin(self, what: str, total: int, unit: str = "bytes") -> None:  # noqa: ARG002
        self._is_own = True

    def advance(self, n: int) -> None:
        if not self._is_own:
            self.n += n
