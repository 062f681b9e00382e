"""Logical tables as blocks of a fused variable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class TableView:
    """A block of rows and columns of a variable under its own name: what checkpoints read and write.

    Attributes:
        name: unique name of the tensor.
        shape: `(rows, dim)`.
    """

    name: str
    variable: tf.Variable = field(repr=False)
    first_row: int
    first_column: int
    shape: tuple[int, int]
    dtype: np.dtype[Any] = field(default=np.dtype(np.float32))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop as a new array `[stop - start, dim]`; reads no other rows.

        Raises:
            IndexError: the table has no such rows.
        """
        first, last = self._rows(start, stop)
        # Reading a slice of the variable would first copy all of it.
        packed = tf.gather(self.variable, tf.range(first, last, dtype=tf.int64))
        return packed[:, self.first_column : self.first_column + self.shape[1]].numpy()

    def write(self, start: int, values: np.ndarray) -> None:
        """Replaces the rows from `start` on by `values` `[n, dim]`.

        Raises:
            IndexError: the table has no such rows.
        """
        first, _ = self._rows(start, start + len(values))
        write_block(self.variable, first, self.first_column, np.asarray(values, self.dtype))

    def _rows(self, start: int, stop: int) -> tuple[int, int]:
        if not 0 <= start <= stop <= self.shape[0]:  # beyond them lie the rows of other tables
            raise IndexError(f"{self.name} has rows 0 .. {self.shape[0] - 1}. Received: {start} .. {stop - 1}.")
        return self.first_row + start, self.first_row + stop


def write_block(variable: tf.Variable, row: int, column: int, values: np.ndarray | tf.Tensor) -> None:
    """Writes `values` `[n, m]` into a matrix variable at (row, column), in place.

    `variable[a:b].assign` would do the same, but reads, and so copies, the whole variable first.
    """
    height, width = values.shape
    tf.raw_ops.ResourceStridedSliceAssign(
        ref=variable.handle,
        begin=tf.constant([row, column], tf.int64),
        end=tf.constant([row + height, column + width], tf.int64),
        strides=tf.constant([1, 1], tf.int64),
        value=values,
    )
