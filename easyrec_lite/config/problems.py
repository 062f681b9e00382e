"""What can be wrong with a config, and how it is said."""

from __future__ import annotations

import dataclasses
import difflib
import enum
from collections.abc import Iterable, Sequence

from easyrec_lite.errors import UserError


class Severity(enum.Enum):
    """Whether a problem stops the run."""

    ERROR = "error"
    WARNING = "warning"


ERROR = Severity.ERROR
WARNING = Severity.WARNING


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """A place in a file; `line` and `column` count from 1."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a config.

    Attributes:
        path: the field, as `features[user_id].embedding_dim`; empty for the file as a whole.
        found: what is there.
        expected: what should be there.
        hint: what to do, such as "did you mean 'user_id'?".
        file: the file, or the override, that says it.
        line: the line in the file, from 1.
        column: the column in the line, from 1.
        severity: an error stops the run, a warning does not.
    """

    path: str
    found: str
    expected: str
    hint: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    severity: Severity = ERROR

    def at(self, location: Location | None) -> Problem:
        """The same problem at a place, unless it has one or none is known."""
        if location is None or self.file is not None:
            return self
        return dataclasses.replace(self, file=location.file, line=location.line, column=location.column)

    def __str__(self) -> str:
        place = str(Location(self.file, self.line, self.column)) if self.file else ""
        head = "".join(f"{part}: " for part in (place, self.path) if part)
        head += "warning: " if self.severity is WARNING else ""
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{head}found {self.found}{expected}" + (f" ({self.hint})" if self.hint else "")


def no_effect(path: str, found: str, expected: str = "") -> Problem:
    """A warning of a field that nothing reads where it stands; `expected` says where, or beside what, it is read."""
    return Problem(path, found, expected, "it has no effect here", severity=WARNING)


class ConfigError(UserError, ValueError):
    """A config that cannot be used; `problems` holds everything that is wrong with it, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems: list[Problem] = list(problems)
        count = sum(problem.severity is ERROR for problem in self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the config"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` was probably meant to be."""
    known = {candidate.lower(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return known[near[0]] if near else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A hint that names the candidate nearest to `name`; empty if none is near."""
    near = nearest(name, candidates)
    return f"did you mean {quote(near)}?" if near is not None else ""


def quote(value: object) -> str:
    """`value` for a message: in quotes, cut where it is long."""
    text = str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return repr(text)


def one_of(names: Sequence[str]) -> str:
    """'one of a, b, c', shortened where there are many; just the name where there is one."""
    if len(names) == 1:
        return names[0]
    shown = list(names[:12]) + (["..."] if len(names) > 12 else [])
    return "one of " + ", ".join(shown)
