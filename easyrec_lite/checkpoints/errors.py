"""The one error of this package."""

from __future__ import annotations

from easyrec_lite.errors import UserError


class CheckpointError(UserError):
    """A checkpoint cannot be written, read or restored; the message says which, why, and what to do."""
