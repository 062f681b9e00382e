"""The error of this room: the rows, not the config, are at fault."""

from __future__ import annotations

from easyrec_lite.errors import UserError


class InputError(UserError, ValueError):
    """A file or a row can't be used.

    Args:
        place: The file, with the line where one is known.
        found: What is there.
        expected: What should be there.
        hint: What to do about it.
    """

    def __init__(self, place: str, found: str, expected: str, hint: str = "") -> None:
        self.place, self.found, self.expected, self.hint = place, found, expected, hint
        advice = f" {hint[0].upper()}{hint[1:]}." if hint else ""
        super().__init__(f"{place}: found {found}; expected {expected}.{advice}")


class MissingFilesError(InputError):
    """There is no file of the name, or none that the pattern matches."""
