"""Lines to cells, a block of lines at a time, such that a damaged line costs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.inputs.errors import InputError
from easyrec_lite.protos import data_pb2

# Arrow splits at one ASCII character; a longer separator is replaced by one of these, whichever the block lacks.
_STAND_INS = bytes([*range(0x1F, 0x0D, -1), *range(1, 9), 0x0B, 0x0C])


def separator_of(config: data_pb2.DatasetConfig) -> bytes:
    """What parts the cells of a line, as `data_config` says; raises ConfigError where that can't be."""
    separator = config.separator.encode()
    if not separator or b"\n" in separator or separator in (b"\r", b'"'):
        found = repr(config.separator)
        raise ConfigError([Problem("data_config.separator", found, "a character other than a line break or quote")])
    return separator


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can't be cut into the expected cells; `line` counts from 0 in the block."""

    line: int
    reason: str


@dataclass
class Cells:
    """The cells of a block of lines.

    Attributes:
        columns: The wanted columns as binary arrays, null where a cell is empty.
        bad: The lines that aren't in them.
        data: The lines.
    """

    columns: Mapping[str, pa.Array]
    bad: Sequence[BadLine]
    data: bytes
    rows_of: np.ndarray | None = field(default=None, repr=False)

    def lines(self) -> np.ndarray:
        """The line of each row, from 0."""
        if self.rows_of is not None:
            return self.rows_of
        return np.arange(len(next(iter(self.columns.values()))))

    def text(self, line: int) -> str:
        """A line of the block."""
        start, end = self._bounds[line], self._bounds[line + 1]
        return self.data[start:end].rstrip(b"\r\n").decode("utf-8", "backslashreplace")

    @cached_property
    def _bounds(self) -> np.ndarray:
        return _bounds(self.data)


def split(data: bytes, separator: bytes, count: int, wanted: Mapping[str, int], file: str) -> Cells:
    """Cuts lines into cells.

    Args:
        data: Whole lines.
        separator: What parts the cells.
        count: Cells a line.
        wanted: The columns to keep: their index, by name.
        file: The file, for messages.
    """
    text, quoted = data, len(separator) == 1 and b"\0" < separator < b"\x80"
    if not quoted:
        stand_in = next((bytes([byte]) for byte in _STAND_INS if byte not in data), None)
        if stand_in is None:
            raise InputError(file, "text with every control character", "one that can stand for the separator")
        text, separator = data.replace(separator, stand_in), stand_in
    last = text[text.rfind(b"\n", 0, -1) + 1 :]
    if not is_utf8(text) or _count(last, separator, quoted) is None:
        return _careful(data, text, separator, count, wanted, quoted)
    columns, wrong, rows = _parse(text, separator, count, wanted, quoted)
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    if rows == lines and (b"\r" not in text or text.count(b"\r") == text.count(b"\r\n")):
        # Every line is a row: none was empty, none ran into the next, none fell apart.
        if not wrong:
            return Cells(columns, [], data)
        return _cells(columns, wrong, np.arange(lines), [], data)
    return _careful(data, text, separator, count, wanted, quoted)


def _careful(data: bytes, text: bytes, separator: bytes, count: int, wanted: Mapping[str, int], quoted: bool) -> Cells:
    """Looks at each line, for blocks with empty lines, open quotes, stray carriage returns or bytes not UTF-8."""
    bad: list[BadLine] = []
    kept: list[bytes] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split(b"\n")):
        bare = line.removesuffix(b"\r")
        if not bare:
            continue
        if b"\r" in bare:
            bad.append(BadLine(number, "a carriage return inside the line"))
        elif (found := _count(bare, separator, quoted)) is None:
            bad.append(BadLine(number, "a quoted cell that isn't closed on its line"))
        elif found != count:
            # Arrow's parser would call back with the line as a str, which it can't be if it isn't UTF-8.
            bad.append(BadLine(number, _wrong_count(found, count)))
        else:
            kept.append(bare)
            numbers.append(number)
    columns, wrong, rows = _parse(b"\n".join(kept), separator, count, wanted, quoted)
    if rows != len(kept):
        raise AssertionError(f"{rows} rows from {len(kept)} lines")
    return _cells(columns, wrong, np.array(numbers, np.int64), bad, data)


def _cells(
    columns: Mapping[str, pa.Array],
    wrong: Mapping[int, str],
    numbers: np.ndarray,
    bad: list[BadLine],
    data: bytes,
) -> Cells:
    bad += [BadLine(int(numbers[row]), reason) for row, reason in wrong.items()]
    return Cells(columns, bad, data, np.delete(numbers, list(wrong)))


def _parse(
    text: bytes, separator: bytes, count: int, wanted: Mapping[str, int], quoted: bool
) -> tuple[dict[str, pa.Array], dict[int, str], int]:
    """Arrow's parser over one block: the wanted columns, the rows of the wrong length, and the number of all rows."""
    wrong: dict[int, str] = {}

    def skip(row: pa_csv.InvalidRow) -> str:
        wrong[row.number - 1] = _wrong_count(row.actual_columns, count)
        return "skip"

    names = [str(index) for index in range(count)]
    if not text.strip(b"\r\n"):
        return {name: pa.array([], pa.binary()) for name in wanted}, wrong, 0
    table = pa_csv.read_csv(
        pa.BufferReader(text),
        pa_csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
        pa_csv.ParseOptions(
            delimiter=separator.decode(), quote_char='"' if quoted else False, invalid_row_handler=skip
        ),
        pa_csv.ConvertOptions(
            include_columns=[names[index] for index in wanted.values()],
            column_types=dict.fromkeys(names, pa.binary()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    columns = {
        name: column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        for name, column in zip(wanted, table.columns, strict=True)
    }
    return columns, wrong, len(table) + len(wrong)


def _count(line: bytes, separator: bytes, quoted: bool) -> int | None:
    """Cells in a line; None if a quoted one is still open at its end. Quotes count at the start of a cell only."""
    if not quoted or b'"' not in line:
        return line.count(separator) + 1
    count, at = 1, 0
    while True:
        if line.startswith(b'"', at):
            closing = line.find(b'"', at + 1)
            while closing >= 0 and line.startswith(b'"', closing + 1):
                closing = line.find(b'"', closing + 2)
            if closing < 0:
                return None
            at = closing + 1
        following = line.find(separator, at)
        if following < 0:
            return count
        count, at = count + 1, following + len(separator)


def _wrong_count(found: int, expected: int) -> str:
    return f"{found} column{'s' * (found != 1)}, expected {expected}"


def is_utf8(text: bytes) -> bool:
    """Whether the text is UTF-8."""
    try:
        offsets = pa.py_buffer(np.array([0, len(text)], np.int32))
        pa.StringArray.from_buffers(1, offsets, pa.py_buffer(text)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _bounds(text: bytes) -> np.ndarray:
    """Where lines start, and the end of the last one."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 0x0A) + 1
    tail = [] if not len(text) or text.endswith(b"\n") else [len(text)]
    return np.concatenate([[0], ends, tail]).astype(np.int64)
