"""Where a source stands: the next row to read, small enough to travel with every batch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from easyrec_lite.inputs.errors import InputError


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows read so far.

    Attributes:
        rows: Rows read over all epochs, the unusable ones included.
        bad: The unusable ones.
        kept: Records written to the file of bad rows.
    """

    rows: int = 0
    bad: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """A gap between two rows of an epoch.

    Attributes:
        file: Index of the file in this epoch's order of files.
        offset: Where a block of rows starts in that file: bytes of (decompressed) text, or rows.
        line: Number of that line, from 1; 0 for files without lines.
        skip: Usable rows between that place and the gap.
        tally: The rows read before `offset`.
    """

    file: int = 0
    offset: int = 0
    line: int = 0
    skip: int = 0
    tally: Tally = Tally()


@dataclass(frozen=True, slots=True)
class Identity:
    """What a position is valid for: which data, in which order.

    Attributes:
        files: Number of files.
        size: Their bytes together (rows, for a frame).
        digest: Digest of all names and sizes, in order.
        order: How the rows are ordered, in words.
    """

    files: int
    size: int
    digest: str
    order: str = ""

    @classmethod
    def of(cls, names: Sequence[str], sizes: Sequence[int]) -> Identity:
        """The identity of files with these names and sizes."""
        text = json.dumps([list(names), list(sizes)])
        return cls(len(names), sum(sizes), hashlib.sha256(text.encode()).hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class Position:
    """The next row to read, for sources that read files or frames. Other rooms treat its JSON as opaque.

    The rows of an epoch are cut into windows, and a window is shuffled as a whole; so the position of a row is the
    window's place in the files plus the row's index in the shuffled window.

    Attributes:
        epoch: Number of the epoch, from 0.
        window: Number of the window in the epoch, from 0.
        index: Index in the (shuffled) window.
        cursor: Where the window's rows start.
        identity: The data and the order that this position belongs to.
    """

    epoch: int
    window: int
    index: int
    cursor: Cursor
    identity: Identity

    def to_json(self) -> str:
        """This position as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Position:
        """Reads what `to_json` wrote.

        Raises:
            InputError: `text` isn't a position.
        """
        try:
            state: dict[str, Any] = json.loads(text)
            cursor = state.pop("cursor")
            tally = Tally(**cursor.pop("tally"))
            return cls(**state | {"cursor": Cursor(**cursor, tally=tally), "identity": Identity(**state["identity"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                "the position to start from",
                f"{text[:200]!r}",
                "the JSON of a position in files",
                "it comes with every batch and is stored in each checkpoint; one of a stream doesn't fit files",
            ) from error

    def check(self, identity: Identity) -> None:
        """Raises InputError unless this position was taken over the same data in the same order."""
        mine = self.identity
        if (mine.files, mine.size, mine.digest) != (identity.files, identity.size, identity.digest):
            raise InputError(
                "the position to start from",
                f"{identity.files} files of {identity.size} bytes (rows, for a frame) now [{identity.digest}]",
                f"the data it was taken over: {mine.files} files of {mine.size} [{mine.digest}], same names and order",
                "put the same files back to continue, or start the new files from their beginning",
            )
        if mine.order != identity.order:
            raise InputError(
                "the position to start from",
                f"rows read {identity.order}",
                f"rows read {mine.order}, as when it was taken",
                "put shuffle, shuffle_window, shuffle_buffer_size and seed back",
            )
