"""Rows of a table in fewer bytes, for inference."""

from __future__ import annotations

import abc
from collections.abc import Iterator

import tensorflow as tf

from easyrec_lite.embeddings.views import write_block

_BLOCK_ROWS = 1 << 16  # rows converted at a time: bounds the memory beside the table
_BYTE_FROM = 5  # columns: with a scale of 4 bytes a row, narrower rows are no smaller in bytes than in halves


class StoredRows(tf.Module, abc.ABC):
    """A table `[rows, dim]` that hands out float32 rows."""

    @abc.abstractmethod
    def rows(self, index: tf.Tensor) -> tf.Tensor:
        """The rows at `index` `[...]`: float32 `[..., dim]`."""


class HalfRows(StoredRows):
    """Rows in bfloat16: 2 bytes a number, a relative error of at most 2^-8.

    Args:
        table: float32 `[rows, dim]`; it is read and left as it is.
    """

    def __init__(self, table: tf.Variable) -> None:
        super().__init__(name="half_rows")
        self.values = tf.Variable(tf.zeros(table.shape, tf.bfloat16), trainable=False, name="values")
        for start, block in _blocks(table):
            write_block(self.values, start, 0, tf.cast(block, tf.bfloat16))

    def rows(self, index: tf.Tensor) -> tf.Tensor:
        """See StoredRows."""
        return tf.cast(tf.gather(self.values, index), tf.float32)


class ByteRows(StoredRows):
    """Rows in int8 with a float32 scale each: dim + 4 bytes a row, an error of at most max|row| / 254.

    Args:
        table: float32 `[rows, dim]`; it is read and left as it is.
    """

    def __init__(self, table: tf.Variable) -> None:
        super().__init__(name="byte_rows")
        self.values = tf.Variable(tf.zeros(table.shape, tf.int8), trainable=False, name="values")
        self.scales = tf.Variable(tf.zeros([table.shape[0], 1]), trainable=False, name="scales")
        for start, block in _blocks(table):
            scales = tf.reduce_max(tf.abs(block), axis=1, keepdims=True) / 127.0
            write_block(self.values, start, 0, tf.cast(tf.round(tf.math.divide_no_nan(block, scales)), tf.int8))
            write_block(self.scales, start, 0, scales)

    def rows(self, index: tf.Tensor) -> tf.Tensor:
        """See StoredRows."""
        return tf.cast(tf.gather(self.values, index), tf.float32) * tf.gather(self.scales, index)


def store_rows(table: tf.Variable, kind: str) -> StoredRows:
    """The table in fewer bytes, its values replaced by what is read back from them.

    So whoever goes on using `table` sees what the stored rows say.

    Args:
        table: float32 `[rows, dim]`.
        kind: "bfloat16" or "int8"; the second means the first for rows too narrow for a scale of their own.

    Raises:
        ValueError: another kind.
    """
    if kind not in ("bfloat16", "int8"):
        raise ValueError(f"kind must be 'bfloat16' or 'int8'. Received: {kind!r}")
    stored = ByteRows(table) if kind == "int8" and table.shape[1] >= _BYTE_FROM else HalfRows(table)
    for start, block in _blocks(table):
        write_block(table, start, 0, stored.rows(tf.range(start, start + block.shape[0])))
    return stored


def _blocks(table: tf.Variable) -> Iterator[tuple[int, tf.Tensor]]:
    for start in range(0, table.shape[0], _BLOCK_ROWS):
        yield start, tf.gather(table, tf.range(start, min(start + _BLOCK_ROWS, table.shape[0])))
