"""Injects a drift into rows, to see whether it is found.

    python -m tools.drift --data 'data/taobao/eval/*.parquet' --out data/drifted.parquet \
        --kind missing --size 0.05 --column age_level --at 50000

| kind             | column    | size                                                                              |
|------------------|-----------|-----------------------------------------------------------------------------------|
| label_rate_up    | a label   | relative: 0.2 makes the rate of a 0/1 label 20 % higher                            |
| label_rate_down  | a label   | relative                                                                          |
| label_flips      | a label   | share of the rows whose 0/1 label is turned round                                 |
| missing          | a feature | points: 0.05 takes the value from so many rows that 5 % more have none            |
| numeric_shift    | numbers   | standard deviations that are added; with --log to the logarithm of positive ones  |
| new_ids          | ids       | share of the ids that become new ones, in all their rows                          |
| silent_partition | partition | the partition whose rows are dropped                                              |
| duplicates       |           | share of the rows that come again, within the next 1,000 rows                     |

Rows before `--at` stay as they are. Without a column, the partition of row i is i mod `--partitions`. The same
arguments make the same rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from easyrec_lite.errors import UserError
from easyrec_lite.terminal import main_guard
from tools._kafka_rows import Files
from tools.data._files import replacing

_SOON = 1000  # rows after which a repeated row has come again


@dataclasses.dataclass(frozen=True)
class Drift:
    """A drift.

    Attributes:
        kind: one of KINDS.
        size: how much, in the kind's own unit.
        at_row: the first row that it may change.
        column: which column it changes; '' for kinds that need none.
        seed: of the choice of rows and ids.
        rows: how many rows it may change; None for all that follow.
        log: of numeric_shift: the logarithm is shifted.
        partitions: of silent_partition without a column: how many there are.
    """

    kind: str
    size: float
    at_row: int = 0
    column: str = ""
    seed: int = 1
    rows: int | None = None
    log: bool = False
    partitions: int = 4

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"kind: expected one of {', '.join(KINDS)}. Received: {self.kind!r}")
        if self.at_row < 0 or (self.rows is not None and self.rows < 1):
            raise UserError(
                f"expected at_row from 0 on, and rows above 0. Received: at_row {self.at_row}, rows {self.rows}"
            )
        if self.kind in _SHARES and not 0 <= self.size <= 1:
            raise UserError(f"size: {self.kind} takes a share from 0 to 1. Received: {self.size}")
        if not self.column and self.kind not in ("silent_partition", "duplicates"):
            raise UserError(f"column: {self.kind} needs the column that it changes.")


def inject(table: pa.Table, drift: Drift) -> pa.Table:
    """The rows with a drift.

    Raises:
        UserError: the drift doesn't fit the table.
    """
    if drift.column and drift.column not in table.column_names:
        raise UserError(f"no column {drift.column!r}. Columns there: {', '.join(table.column_names)}")
    if isinstance(table, pa.RecordBatch):
        table = pa.table(table)
    begin = min(drift.at_row, table.num_rows)
    end = table.num_rows if drift.rows is None else min(begin + drift.rows, table.num_rows)
    if begin == end:
        return table
    part = KINDS[drift.kind](table, table.slice(begin, end - begin), drift, np.random.default_rng(drift.seed))
    return pa.concat_tables([table.slice(0, begin), part.cast(table.schema), table.slice(end)])


def _label_rate(table: pa.Table, part: pa.Table, drift: Drift, random: np.random.Generator) -> pa.Table:
    labels, chances = _binary(part, drift.column), random.random(part.num_rows)
    if drift.kind == "label_rate_down":
        labels = np.where(chances < drift.size, 0, labels)
    else:
        rate = float(labels.mean())
        if rate * (1 + drift.size) > 1:
            raise UserError(f"size: a rate of {rate:.3f} can't rise by {drift.size:.0%}")
        labels = np.where(chances < drift.size * rate / max(1 - rate, 1e-12), 1, labels)
    return _with(part, drift.column, labels)


def _label_flips(table: pa.Table, part: pa.Table, drift: Drift, random: np.random.Generator) -> pa.Table:
    labels = _binary(part, drift.column)
    return _with(part, drift.column, np.where(random.random(part.num_rows) < drift.size, 1 - labels, labels))


def _missing(table: pa.Table, part: pa.Table, drift: Drift, random: np.random.Generator) -> pa.Table:
    column = part[drift.column].combine_chunks()
    there = ~column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_list(column.type):
        there &= pc.fill_null(pc.list_value_length(column), 0).to_numpy() > 0
    share = float(there.mean())
    if drift.size > share:
        raise UserError(f"size: only {share:.1%} of the rows have a {drift.column!r}")
    taken = there & (random.random(part.num_rows) < drift.size / max(share, 1e-12))
    kept = np.where(taken, -1, np.arange(part.num_rows))
    return _with(part, drift.column, column.take(pa.array(kept, mask=taken)))


def _numeric_shift(table: pa.Table, part: pa.Table, drift: Drift, random: np.random.Generator) -> pa.Table:
    kind = table.schema.field(drift.column).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise UserError(f"column {drift.column!r}: numeric_shift takes numbers. Found: {kind}")
    column = part[drift.column].combine_chunks().cast(pa.float64())
    numbers = table[drift.column].cast(pa.float64())
    if drift.log:
        if (pc.min(numbers).as_py() or 0) <= 0:
            raise UserError(f"column {drift.column!r}: --log takes positive numbers")
        moved = pc.exp(pc.add(pc.ln(column), drift.size * pc.stddev(pc.ln(numbers)).as_py()))
    else:
        moved = pc.add(column, drift.size * pc.stddev(numbers).as_py())
    return _with(part, drift.column, moved if pa.types.is_floating(kind) else pc.round(moved))


def _new_ids(table: pa.Table, part: pa.Table, drift: Drift, random: np.random.Generator) -> pa.Table:
    column = part[drift.column].combine_chunks()
    everything = table[drift.column].combine_chunks()
    listed = pa.types.is_list(column.type)
    distinct = (everything.flatten() if listed else everything).unique().drop_null()
    chosen = distinct.filter(pa.array(random.random(len(distinct)) < drift.size))
    values = column.flatten() if listed else column
    if pa.types.is_integer(values.type):
        new = pc.add(values, pc.max(distinct).as_py() + 1 if len(distinct) else 0)
    elif pa.types.is_string(values.type):
        new = pc.binary_join_element_wise(values, "new", "~")
    else:
        raise UserError(f"column {drift.column!r}: new_ids takes integers or strings. Found: {values.type}")
    values = pc.if_else(pc.fill_null(pc.is_in(values, chosen), False), new, values)
    if listed:
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        splits = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), mask=None)
        values = pa.ListArray.from_arrays(splits, values.combine_chunks() if hasattr(values, "chunks") else values)
    return _with(part, drift.column, values)


def _silent_partition(table: pa.Table, part: pa.Table, drift: Drift, random: np.random.Generator) -> pa.Table:
    if drift.column:
        partitions = part[drift.column].to_numpy()
    else:
        partitions = (drift.at_row + np.arange(part.num_rows)) % drift.partitions
    return part.filter(pa.array(partitions != drift.size))


def _duplicates(table: pa.Table, part: pa.Table, drift: Drift, random: np.random.Generator) -> pa.Table:
    rows = np.arange(part.num_rows)
    repeated = rows[random.random(part.num_rows) < drift.size]
    places = repeated + random.integers(1, _SOON, len(repeated))
    order = np.argsort(np.concatenate([rows, places]), kind="stable")
    return part.take(pa.array(np.concatenate([rows, repeated])[order]))


_Injector = Callable[[pa.Table, pa.Table, Drift, np.random.Generator], pa.Table]
KINDS: Mapping[str, _Injector] = {
    "label_rate_up": _label_rate,
    "label_rate_down": _label_rate,
    "label_flips": _label_flips,
    "missing": _missing,
    "numeric_shift": _numeric_shift,
    "new_ids": _new_ids,
    "silent_partition": _silent_partition,
    "duplicates": _duplicates,
}
_SHARES = ("label_rate_down", "label_flips", "missing", "new_ids", "duplicates")


def _binary(part: pa.Table, column: str) -> npt.NDArray[np.int64]:
    labels = part[column].to_numpy()
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"column {column!r}: expected a 0/1 label")
    return labels.astype(np.int64)


def _with(part: pa.Table, column: str, values: pa.Array | np.ndarray) -> pa.Table:
    place = part.schema.get_field_index(column)
    kind = part.schema.field(column).type
    values = pa.array(values) if isinstance(values, np.ndarray) else values
    return part.set_column(place, part.schema.field(column), values.cast(kind))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.drift", description="Injects a drift into rows.")
    add = parser.add_argument
    add("--data", required=True, help="Parquet: a file, a folder or a glob in quotes")
    add("--out", required=True, help="Parquet file to write")
    add("--kind", required=True, choices=tuple(KINDS), help="of drift")
    add("--size", required=True, type=float, help="how much, in the kind's own unit")
    add("--at", type=int, default=0, help="first row that it may change (default: %(default)s)")
    add("--rows", type=int, help="how many rows it may change (default: all that follow)")
    add("--column", default="", help="which column it changes")
    add("--log", action="store_true", help="numeric_shift: shift the logarithm")
    add("--partitions", type=int, default=4, help="silent_partition without a column (default: %(default)s)")
    add("--seed", type=int, default=1, help="(default: %(default)s)")
    return parser


@main_guard
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    drift = Drift(
        options.kind,
        options.size,
        options.at,
        options.column,
        options.seed,
        options.rows,
        options.log,
        options.partitions,
    )
    files = Files(options.data)
    tables = [pa.table(chunk) for chunk in files.chunks(list(files.columns), 0, files.rows)]
    table = pa.concat_tables(tables)
    drifted = inject(table, drift)
    with replacing(Path(options.out)) as partial:
        pq.write_table(drifted, partial, row_group_size=65_536)
    print(
        f"{options.out}: {drifted.num_rows:,} rows ({table.num_rows:,} before), {drift.kind} from row {drift.at_row:,}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
