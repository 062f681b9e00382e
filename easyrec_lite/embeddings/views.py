"""Logical tables as ranges of a fused variable."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    dtype: np.dtype = field(default=np.dtype(np.float32))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop as a new array `[stop - start, dim]`; reads no other rows."""
        # A slice of the variable would first copy all of it (copy-on-read, once it has been scattered into).
        packed = tf.gather(self.variable, tf.range(self.first_row + start, self.first_row + stop))
        return packed[:, self.first_column : self.first_column + self.shape[1]].numpy()

    def write(self, start: int, values: np.ndarray) -> None:
        """Replaces the rows from `start` on by `values` `[n, dim]`."""
        first = self.first_row + start
        self.variable[
            first : first + len(values), self.first_column : self.first_column + self.shape[1]
        ].assign(values)
