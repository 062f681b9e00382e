"""Rows that can't be used: counted, shown, kept aside, and the run's end when they are too many."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.position import Tally
from easyrec_lite.protos import data_pb2

_LOG = logging.getLogger(__name__)
MASK = "***"


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that can't be used.

    Attributes:
        file: Its file; topic/partition, for streams.
        line: Its line in the text, or its row in a file without lines, from 1; the offset of its message, for streams.
        reason: What is wrong, without any value of the row.
        column: The column at fault, where it is one.
        value: The cell at fault.
        cells: The cells of the columns that were asked for, where they could be told apart.
        text: The whole line, for text files; the message, for streams.
        row: The row in its message, from 0, where a message of a stream has several.
    """

    file: str
    line: int
    reason: str
    column: str | None = None
    value: str | None = None
    cells: Mapping[str, Any] | None = None
    text: str | None = None
    row: int | None = None

    def describe(self, private: Collection[str] = ()) -> str:
        """One line for people, values of private columns masked."""
        place = f"{self.file}:{self.line}" + ("" if self.row is None else f", row {self.row}")
        if self.column is None:
            return f"{place}: {self.reason}"
        value = MASK if self.column in private else repr(self.value)
        return f"{place}: column {self.column!r}: {value} {self.reason}"

    def record(self, private: Collection[str] = ()) -> dict[str, Any]:
        """What is kept of the row: masked, and the whole line only if no column is private."""
        masked = {name: MASK if name in private else cell for name, cell in (self.cells or {}).items()}
        record = {
            "file": self.file,
            "line": self.line,
            "row": self.row,
            "reason": self.reason,
            "column": self.column,
            "value": MASK if self.column in private and self.value is not None else self.value,
            "cells": masked or None,
            "text": None if private else self.text,
        }
        return {key: value for key, value in record.items() if value is not None}


class BadRows:
    """Keeps count of the rows that can't be used.

    A source calls it in the order of reading, and rewinds it when it starts: positions carry the counts, so a run that
    is stopped and continued counts, writes and fails exactly as one that never stopped, and nothing else is to be
    stored. The file runs ahead of training by what is read ahead; starting again cuts it back. Rows are written in the
    first epoch only: later epochs meet the same ones.

    Args:
        path: The file to write, one JSON object a line; None writes none.
        private_columns: Columns whose values never leave the data. If there is any, whole lines aren't kept either.
        max_share: The run fails once more than this share of the rows read so far was unusable.
        min_rows: Rows before the share is looked at while reading; at the end of an epoch it always is.
        show: How many of them are logged.
        keep: How many of them are written; all are counted.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        private_columns: Collection[str] = (),
        max_share: float = 0.01,
        *,
        min_rows: int = 10_000,
        show: int = 5,
        keep: int = 10_000,
    ) -> None:
        self.path = Path(path) if path is not None else None
        self.private = frozenset(private_columns)
        self.max_share, self.min_rows, self.show, self.keep = max_share, min_rows, show, keep
        self.tally = Tally()
        self._shown = 0
        self._last: BadRow | None = None

    @classmethod
    def from_config(cls, config: data_pb2.DatasetConfig, path: str | os.PathLike[str] | None = None) -> BadRows:
        """As `data_config` says: private fields, max_bad_row_share, and ignore_error, which tolerates any share."""
        private = [field.input_name for field in config.input_fields if field.private]
        return cls(path, private, 1.0 if config.ignore_error else config.max_bad_row_share)

    def rewind(self, tally: Tally) -> None:
        """Goes back to these counts and cuts the file to the records written by then."""
        self.tally = tally
        if self.path is None or not self.path.exists():
            return
        with self.path.open("r+b") as file:
            for _ in range(tally.kept):
                if not file.readline().endswith(b"\n"):
                    _LOG.warning("%s holds fewer bad rows than were counted; it was changed since", self.path)
                    break
            file.truncate(file.tell())

    def add(self, rows: int, bad: Sequence[BadRow], *, keep: bool = True) -> None:
        """Counts `rows` more rows, of which these are bad; `keep` writes them.

        Raises:
            InputError: Too large a share of the rows is bad.
        """
        kept = list(bad[: max(0, self.keep - self.tally.kept)]) if keep else []
        if kept and self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(
                    json.dumps(row.record(self.private), ensure_ascii=False, default=str) + "\n" for row in kept
                )
        for row in bad[: max(0, self.show - self._shown)]:
            self._shown += 1
            more = " (further ones are only counted here)" if self._shown == self.show else ""
            _LOG.warning("row left out: %s%s", row.describe(self.private), more)
        self._last = bad[-1] if bad else self._last
        self.tally = Tally(self.tally.rows + rows, self.tally.bad + len(bad), self.tally.kept + len(kept))
        if self.tally.rows >= self.min_rows:
            self.check()

    def check(self) -> None:
        """Raises InputError if more than `max_share` of the rows so far was bad."""
        rows, bad = self.tally.rows, self.tally.bad
        if bad <= self.max_share * rows:
            return
        last = f"; the last one: {self._last.describe(self.private)}" if self._last else ""
        kept = f", they are in {self.path}" if self.path else ""
        raise InputError(
            "data_config.max_bad_row_share",
            f"{bad} unusable rows among {rows} ({bad / rows:.2%}){last}",
            f"at most {self.max_share:.2%}",
            f"mend the rows{kept}, or raise max_bad_row_share",
        )
