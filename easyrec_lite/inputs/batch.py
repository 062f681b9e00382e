"""What a source yields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from easyrec_lite.inputs.schema import ColumnSpec, Kind


class HasJson(Protocol):
    """A position, as everything outside this room sees it: opaque, and JSON."""

    def to_json(self) -> str:
        """One line of JSON."""
        ...


@dataclass(frozen=True, slots=True)
class Ragged:
    """A list of values per row, flat, as in `tf.RaggedTensor`.

    Attributes:
        values: The values of all rows, one after the other: int64 or float32 `[N]`, or an Arrow string array of N.
        row_splits: int64 `[B + 1]`; row i holds `values[row_splits[i]:row_splits[i + 1]]`.
    """

    values: np.ndarray | pa.Array
    row_splits: np.ndarray


# int64 or float32 [B]; text [B] as an Arrow string array, because B Python strings would cost more than the reading.
Column: TypeAlias = np.ndarray | pa.Array | Ragged


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Rows as they were read, missing cells filled.

    Attributes:
        columns: Column by name.
        position: The next row to read after this batch.
        rows: B.
        missing: Cells that were empty or null, for each column that had any.
        event_time: The newest time of the rows as a stream knows it, in seconds since 1970; NaN for files.
        kept: Columns to hand on, as they were read; None where there are none.
    """

    columns: Mapping[str, Column]
    position: HasJson
    rows: int
    missing: Mapping[str, int]
    event_time: float = math.nan
    kept: pa.RecordBatch | None = None


def join(pieces: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of one or more pieces; of one, without a copy."""
    return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)


def to_batch(
    rows: pa.RecordBatch, specs: Mapping[str, ColumnSpec], position: HasJson, event_time: float = math.nan
) -> RawBatch:
    """Makes a batch of typed rows (int64, float32, string, or lists of these): missing cells are counted and filled.

    Columns behind those of `specs` are kept as they are.
    """
    columns: dict[str, Column] = {}
    missing: dict[str, int] = {}
    for array, (name, spec) in zip(rows.columns[: len(specs)], specs.items(), strict=True):
        if array.null_count:
            missing[name] = array.null_count
        if spec.ragged:
            columns[name] = _ragged(array, spec)
        elif array.null_count:
            columns[name] = _flat(pc.fill_null(array, pa.scalar(spec.default, array.type)), spec)
        else:
            columns[name] = _flat(array, spec)
    kept = rows.select(range(len(specs), rows.num_columns)) if rows.num_columns > len(specs) else None
    return RawBatch(columns, position, len(rows), missing, event_time, kept)


def _ragged(array: pa.ListArray, spec: ColumnSpec) -> Ragged:
    if array.null_count:
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        splits = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    else:
        splits = array.offsets.to_numpy().astype(np.int64)
        splits -= splits[0]
    return Ragged(_flat(array.flatten(), spec), splits)


def _flat(array: pa.Array, spec: ColumnSpec) -> np.ndarray | pa.Array:
    return array if spec.kind is Kind.TEXT else array.to_numpy()
