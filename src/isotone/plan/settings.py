"""How matrices are to be clustered: settings, rules that change them, and which tensors they reach.

These are plain values. They are read from what a user wrote in `options.py`, and applied to the
tensors of a model in `tensors.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from isotone.core.cluster import check_k
from isotone.core.clustering.method import Method, MethodSettings, method_named
from isotone.core.clustering.outliers import Protection
from isotone.core.scales.balancing import ScaleRule
from isotone.errors import InputError


@dataclass(frozen=True)
class MatrixSettings:
    """How one matrix is clustered.

    Attributes
    ----------
    k : int
        The number of centroids, 2 to 256; the largest number where `lambda_` is given.
    protect : Protection
        The rule for protected weights: outliers that are stored exactly.
    scale : ScaleRule
        The rule for the scales of rows and columns.
    lambda_ : float, optional
        The Lagrange multiplier of a bit, see `EntropyMethod`; None if no size was asked for.
    method_name : str, optional
        The name of a registered method. By default `entropy` if `lambda_` is given, and `kmeans`
        otherwise.
    """

    k: int = 16
    protect: Protection = field(default_factory=Protection)
    scale: ScaleRule = ScaleRule.AUTO
    lambda_: float | None = None
    method_name: str | None = None

    @property
    def method(self) -> Method:
        """The method that clusters the histogram of a matrix, made by its factory."""
        name = self.method_name or ("kmeans" if self.lambda_ is None else "entropy")
        return method_named(name)(MethodSettings(self.k, self.protect, self.lambda_))


@dataclass(frozen=True)
class Rule:
    """Changes of the settings for those tensors whose names match a glob.

    Attributes
    ----------
    glob : str
        A glob on tensor names.
    changes : tuple of (str, str)
        Names of settings (`k`, `protect` or `scale`) and their new values, as the user wrote them.
    """

    glob: str
    changes: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read a rule.

        Parameters
        ----------
        text : str
            A glob, a colon and changes: `GLOB:k=64` or `GLOB:k=64,protect=off`.

        Returns
        -------
        Rule
            The rule; its values are checked.

        Raises
        ------
        InputError
            If the text is not of this form, or a value is not allowed.

        Examples
        --------
        >>> Rule.parse("*.down_proj:k=64,protect=off").changes
        (('k', '64'), ('protect', 'off'))
        """
        glob, colon, pairs = text.rpartition(":")
        changes = tuple(tuple(pair.strip().split("=", 1)) for pair in pairs.split(","))
        if not colon or not glob or any(len(change) != 2 for change in changes):
            raise InputError(f"set is {text!r}; expected GLOB:k=64 or GLOB:k=64,protect=off")
        rule = cls(glob, changes)  # type: ignore[arg-type]
        rule.apply(MatrixSettings())
        return rule

    def apply(self, settings: MatrixSettings) -> MatrixSettings:
        """Return settings with the changes of this rule.

        Parameters
        ----------
        settings : MatrixSettings
            The settings before.

        Returns
        -------
        MatrixSettings
            The settings after.

        Raises
        ------
        InputError
            If the rule names an unknown setting, or a value is not allowed.
        """
        for key, value in self.changes:
            if key == "k":
                settings = replace(settings, k=parse_k(value))
            elif key == "protect":
                settings = replace(settings, protect=Protection.parse(value))
            elif key == "scale":
                settings = replace(settings, scale=ScaleRule.parse(value))
            else:
                raise InputError(
                    f"set {self.glob!r}: {key!r} is not a setting; expected k, protect, scale"
                )
        return settings


@dataclass(frozen=True)
class Selection:
    """Which tensors are clustered, and how.

    Attributes
    ----------
    settings : MatrixSettings
        The settings of all tensors that no rule changes.
    include, exclude : tuple of str
        Globs on tensor names, with or without `.weight`. Without `include`, all matrices are
        included; `exclude` is applied afterwards.
    rules : tuple of Rule
        Changes of the settings for some tensors. They apply in order, so later rules win.
    """

    settings: MatrixSettings = field(default_factory=MatrixSettings)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    def chooses(self, names: Sequence[str]) -> bool:
        """Return whether a matrix is clustered, as far as that depends on its names.

        Parameters
        ----------
        names : sequence of str
            The name of the tensor, and those of the copies that are stored with it.

        Returns
        -------
        bool
            Whether one of the names is included, and none is excluded.
        """
        included = not self.include or any(_match(names, glob) for glob in self.include)
        return included and not any(_match(names, glob) for glob in self.exclude)

    def settings_for(self, names: Sequence[str]) -> MatrixSettings:
        """Return the settings of one tensor.

        Parameters
        ----------
        names : sequence of str
            The name of the tensor, and those of the copies that are stored with it.

        Returns
        -------
        MatrixSettings
            The settings after all rules whose globs match one of the names.
        """
        settings = self.settings
        for rule in self.rules:
            if _match(names, rule.glob):
                settings = rule.apply(settings)
        return settings


def _match(names: Sequence[str], glob: str) -> bool:
    return any(matches(name, glob) for name in names)


def matches(name: str, glob: str) -> bool:
    """Return whether a tensor's name matches a glob, with or without its suffix `.weight`.

    Parameters
    ----------
    name : str
        The name of the tensor.
    glob : str
        The glob, in which upper and lower case differ.

    Returns
    -------
    bool
        Whether it matches.
    """
    return fnmatchcase(name, glob) or fnmatchcase(name.removesuffix(".weight"), glob)


def parse_k(text: str) -> int:
    """Read a number of centroids.

    Parameters
    ----------
    text : str
        The number as the user wrote it.

    Returns
    -------
    int
        The number, 2 to 256.

    Raises
    ------
    InputError
        If the text is not such a number.
    """
    try:
        k = int(text)
    except ValueError:
        raise InputError(f"k is {text!r}; expected a number from 2 to 256") from None
    check_k(k)
    return k
