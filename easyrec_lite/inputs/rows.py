"""What a file format has to offer: blocks of rows, from any place on."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from easyrec_lite.inputs.bad_rows import BadRow
from easyrec_lite.inputs.convert import as_read, convert, convert_objects, why
from easyrec_lite.inputs.position import Identity
from easyrec_lite.inputs.schema import ColumnSpec

# Cells of one column as they came: an Arrow array, or Python values of any types.
RawColumn: TypeAlias = pa.Array | list[object]


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


def clean(
    block: Block,
    specs: Mapping[str, ColumnSpec],
    file: str,
    required: Collection[str] = (),
    keep: Collection[str] = (),
) -> tuple[pa.RecordBatch, list[BadRow]]:
    """Types the columns of a block and takes out the rows that can't be used, such as those without a `required` cell.

    Returns:
        The usable rows, null where a cell is missing, with the columns of `keep` behind the typed ones, as they were
        read; and the others, in the order of the file.
    """
    table, at_fault = typed(block.columns, specs, required)
    for name in keep:
        array, bad = as_read(block.columns[name])
        table = table.append_column(name, array)
        for index in np.flatnonzero(bad) if bad is not None else ():
            at_fault.setdefault(int(index), (name, "is not UTF-8 text"))
    rows = list(block.bad)
    if at_fault:
        lines = block.lines()
        for row, (name, reason) in at_fault.items():
            cells = show_row(block.columns, row)
            value = "" if cells[name] is None else as_text(cells[name])
            rows.append(BadRow(file, int(lines[row]), reason, name, value, cells, block.text(row)))
        usable = np.ones(len(table), bool)
        usable[list(at_fault)] = False
        table = table.filter(pa.array(usable))
    return table, sorted(rows, key=lambda row: row.line)


def typed(
    columns: Mapping[str, RawColumn], specs: Mapping[str, ColumnSpec], required: Collection[str] = ()
) -> tuple[pa.RecordBatch, dict[int, tuple[str, str]]]:
    """Types the columns of some rows.

    Args:
        columns: The cells, by name: an Arrow array, or a list of Python values.
        specs: What they become.
        required: Columns without which a row can't be used. An empty text or list is missing there too.

    Returns:
        All rows, null where a cell is missing, and for each unusable one the first column at fault, and why.
    """
    arrays: list[pa.Array] = []
    at_fault: dict[int, tuple[str, str]] = {}
    for name, spec in specs.items():
        column = columns[name]
        if at_fault and isinstance(column, pa.Array) and column.type in (pa.binary(), pa.string()):
            # Rows that are lost already aren't looked at again: cells that can't be read take the longest.
            lost = np.isin(np.arange(len(column)), list(at_fault))
            column = pc.if_else(pa.array(lost), pa.scalar(None, column.type), column)
        array, bad = convert_objects(column, spec) if isinstance(column, list) else convert(column, spec)
        arrays.append(array)
        for index in np.flatnonzero(bad) if bad is not None else ():
            at_fault.setdefault(int(index), (name, why(spec)))
    for name, array in zip(specs, arrays, strict=True):
        if name in required:
            for index in np.flatnonzero(_missing(array)):
                at_fault.setdefault(int(index), (name, "is missing: mend it, or declare its default_val"))
    return pa.RecordBatch.from_arrays(arrays, names=list(specs)), at_fault


def show_row(columns: Mapping[str, RawColumn], row: int) -> dict[str, object]:
    """The cells of a row as they came, for people."""
    return {name: _show(column[row]) for name, column in columns.items()}


def as_text(value: object) -> str:
    """A cell as short text."""
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _missing(column: pa.Array) -> np.ndarray:
    missing = column.is_null()
    if pa.types.is_list(column.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(pc.list_value_length(column), 0), True))
    elif pa.types.is_string(column.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(column, ""), True))
    return missing.to_numpy(zero_copy_only=False)


def _show(cell: Any) -> object:
    try:
        value = cell.as_py() if isinstance(cell, pa.Scalar) else cell
    except (ValueError, OverflowError):  # a time that Python has no type for
        value = f"<{cell.type}>"
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
