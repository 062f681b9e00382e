"""What a file format has to offer: blocks of rows, from any place on."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from easyrec_lite.inputs.bad_rows import BadRow
from easyrec_lite.inputs.convert import convert, why
from easyrec_lite.inputs.position import Identity
from easyrec_lite.inputs.schema import ColumnSpec


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of one file, cells as the file has them.

    Attributes:
        columns: The wanted columns, by name, null where a cell is missing; all of one length.
        offset: Where the block starts: bytes of (decompressed) text, or rows.
        line: Number of the line there, from 1; 0 for files without lines.
        bad: Rows that couldn't be cut into cells; they aren't in `columns`.
        lines: The line (or row) numbers of the rows in `columns`, from 1; asked for only when a row is bad.
        text: The whole line of a row in `columns`, None for files without lines.
    """

    columns: Mapping[str, pa.Array]
    offset: int
    line: int
    bad: Sequence[BadRow]
    lines: Callable[[], np.ndarray]
    text: Callable[[int], str | None]

    @property
    def rows(self) -> int:
        """Rows in `columns`."""
        return len(next(iter(self.columns.values())))


class Rows(abc.ABC):
    """The rows of some files (or of one frame), readable from any place that a block started at."""

    def __init__(self, specs: Mapping[str, ColumnSpec], names: Sequence[str], identity: Identity) -> None:
        self.specs, self.names, self.identity = dict(specs), list(names), identity

    @abc.abstractmethod
    def blocks(self, file: int, offset: int = 0, line: int = 0) -> Iterator[Block]:
        """Reads one file.

        Args:
            file: Index into `names`.
            offset: Where to start: 0, or the offset of an earlier block.
            line: The line of that earlier block.

        Raises:
            InputError: The file is damaged, or has changed since it was opened.
        """

    @property
    def num_rows(self) -> int | None:
        """Rows of all files together, unusable ones included; None where that takes reading them."""
        return None


def clean(block: Block, specs: Mapping[str, ColumnSpec], file: str) -> tuple[pa.RecordBatch, list[BadRow]]:
    """Types the columns of a block and takes out the rows that can't be used.

    Returns:
        The usable rows, null where a cell is missing, and the others, in the order of the file.
    """
    arrays: list[pa.Array] = []
    at_fault: dict[int, str] = {}
    for name, spec in specs.items():
        array, bad = convert(block.columns[name], spec)
        arrays.append(array)
        for index in np.flatnonzero(bad) if bad is not None else ():
            at_fault.setdefault(int(index), name)
    table = pa.RecordBatch.from_arrays(arrays, names=list(specs))
    rows = list(block.bad)
    if at_fault:
        lines = block.lines()
        for row, name in at_fault.items():
            cells = {column: _show(array[row]) for column, array in block.columns.items()}
            rows.append(
                BadRow(file, int(lines[row]), why(specs[name]), name, _as_text(cells[name]), cells, block.text(row))
            )
        usable = np.ones(len(table), bool)
        usable[list(at_fault)] = False
        table = table.filter(pa.array(usable))
    return table, sorted(rows, key=lambda row: row.line)


def _show(cell: pa.Scalar) -> object:
    value = cell.as_py()
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _as_text(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."
