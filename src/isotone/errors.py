"""The errors that isotone raises for what a user gave it.

The command line prints the message as one line and exits with 2. A message says what was given,
what was expected and what to do.
"""


class IsotoneError(Exception):
    """Something outside of isotone is not as it should be."""


class InputError(IsotoneError):
    """An argument or a model that cannot be used as asked."""


class FormatError(IsotoneError):
    """A file that is not what its format says: truncated, tampered with, or of another version."""


class MissingExtraError(IsotoneError):
    """A feature that needs packages of one of isotone's extras."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs packages that are missing: pip install 'isotone[{extra}]'")
