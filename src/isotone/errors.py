"""The errors that isotone raises for what a user gave it.

The command line prints the message as one line and exits with 2. A message says what was given,
what was expected and what to do.
"""


class IsotoneError(Exception):
    """Something that a user gave isotone cannot be used; the base of all errors here."""


class InputError(IsotoneError):
    """An argument or a model cannot be used as asked."""


class FormatError(IsotoneError):
    """A file is not what its format says: truncated, tampered with, or of another version."""


class MissingExtraError(IsotoneError):
    """A feature needs packages that are not installed.

    Parameters
    ----------
    what : str
        What needs the packages, as the subject of a sentence.
    extra : str
        The extra of isotone that installs them.

    Examples
    --------
    >>> print(MissingExtraError("generating text", "models"))
    generating text needs packages that are missing: pip install 'isotone[models]'
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs packages that are missing: pip install 'isotone[{extra}]'")
