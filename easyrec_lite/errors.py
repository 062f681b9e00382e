"""The errors that are no fault of this package; the commands tell them from faults by these classes."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave is wrong: a config, a row, a checkpoint, a path.

    The commands print its message without a traceback and exit with code 2, so the message must name the place, what
    was found, what was expected and what to do.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows, there too without a traceback."""
        return [f"{type(self).__name__}: {self}"]


class DriftAlarm(Exception):  # noqa: N818 - nothing went wrong here: the watch did its work
    """A drift check with the action STOP ended the training; the commands exit with code 3."""
