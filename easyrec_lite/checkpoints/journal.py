"""An append-only file of JSON lines that a restart cuts back to its checkpoint."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from easyrec_lite.checkpoints._json import plain
from easyrec_lite.checkpoints.files import Files, PathLike, atomic_write_bytes

_logger = logging.getLogger(__name__)


class Journal:
    r"""Records of a run, one JSON object a line, each with the `key` (its training step).

    A kill may tear the last line; a torn line is dropped at the next `append` or `truncate_after`, and readers here
    skip it. One process writes; any number may read.

        with Journal(model_dir / "metrics.jsonl") as metrics:
            metrics.truncate_after(restored_step)
            metrics.append({"step": 1200, "loss": 0.31})
    """

    def __init__(self, path: PathLike, *, key: str = "step", files: Files | None = None) -> None:
        self.path = Path(path)
        self._key = key
        self._files = files or Files()
        self._file: BinaryIO | None = None

    def append(self, record: Mapping[str, Any], *, sync: bool = False) -> None:
        """Write one record, in one system call; NaN and Infinity become null.

        Args:
            record: JSON-able values (NumPy scalars too); must have the key.
            sync: return only when the record would survive a loss of power.

        Raises:
            ValueError: the record lacks the key.
        """
        if self._key not in record:
            raise ValueError(f"a record of {self.path.name} needs the key {self._key!r}; received {sorted(record)}")
        if self._file is None:
            self._file = self._open()
        line = json.dumps(plain(record, finite=True), ensure_ascii=False, allow_nan=False)
        self._files.write(self._file, f"{line}\n".encode())
        if sync:
            self._files.sync(self._file)

    def sync(self) -> None:
        """Return when all records appended so far would survive a loss of power."""
        if self._file is not None:
            self._files.sync(self._file)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records in the order written; lines that cannot be read are skipped with a warning."""
        for _, record in self._lines():
            yield record

    def truncate_after(self, step: int) -> int:
        """Drop the records whose key is greater than `step`, and torn lines; return how many records went.

        The file is replaced atomically, and left alone if nothing is to go.
        """
        self.close()
        if not self.path.exists():
            return 0
        lines = list(self._lines())
        kept = [line for line, record in lines if record[self._key] <= step]
        if sum(map(len, kept)) != self.path.stat().st_size:
            atomic_write_bytes(self.path, b"".join(kept), self._files)
        return len(lines) - len(kept)

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    record = None
                if isinstance(record, dict) and isinstance(record.get(self._key), int | float):
                    yield line, record
                else:
                    _logger.warning("%s:%d: not a complete record, left out", self.path, number)

    def _open(self) -> BinaryIO:
        is_new = not self.path.exists()
        if is_new:
            self._files.make_dirs(self.path.parent)
        file = self._files.append(self.path)
        _cut_torn_line(file)
        if is_new:
            self._files.sync_dir(self.path.parent)
        return file


def _cut_torn_line(file: BinaryIO, block: int = 1 << 16) -> None:
    """Cut the file after its last newline."""
    end = size = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        file.truncate(end)
