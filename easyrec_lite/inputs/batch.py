"""What a source yields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import pyarrow as pa


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
    """

    columns: Mapping[str, Column]
    position: HasJson
    rows: int
    missing: Mapping[str, int]
    event_time: float = math.nan
