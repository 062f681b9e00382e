"""Logical embedding tables and their initial values."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import tensorflow as tf

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.protos import feature_pb2

# (table, first row, number of rows, seed [2] int32) -> float32 values of those rows.
InitialValues = Callable[["TableSpec", int, int, tf.Tensor], tf.Tensor]

_BLOCK_VALUES = 1 << 22  # values initialised at a time: bounds the memory beside the table
_INT32_MAX = 2**31 - 1
_TRUNCATED_STDDEV = 0.87962566103423978  # of a standard normal cut at two standard deviations


@dataclass(frozen=True)
class TableSpec:
    """One logical table.

    Attributes:
        name: the name under which checkpoints, warm start and export see it.
        rows: number of ids; valid ids are 0 .. rows-1.
        dim: width of a row.
        owners: names of the features that look it up; not empty.
        initial: initial values, see `table_initializer`.
    """

    name: str
    rows: int
    dim: int
    owners: tuple[str, ...]
    initial: InitialValues = field(compare=False, repr=False)

    @property
    def bytes(self) -> int:
        """Size of the weights in bytes (float32), without optimizer state."""
        return 4 * self.rows * self.dim

    def initial_blocks(self, seed: int) -> Iterator[tuple[int, tf.Tensor]]:
        """Initial values, block by block: first row and values `[n, dim]`.

        They are a function of the run's seed, the table's name and its shape, and of nothing else.

        Raises:
            ConfigError: the initializer does not fit the table.
        """
        name_seed = zlib.crc32(self.name.encode())
        size = max(1, _BLOCK_VALUES // self.dim)
        for start in range(0, self.rows, size):
            block_seed = tf.constant([seed & _INT32_MAX, (name_seed + start) & _INT32_MAX], tf.int32)
            yield start, self.initial(self, start, min(size, self.rows - start), block_seed)


def table_initializer(config: feature_pb2.Initializer | None, dim: int) -> InitialValues:
    """Initial values as `FeatureConfig.initializer` gives them.

    Args:
        config: the message; None for a normal distribution truncated at two standard deviations of 1/sqrt(dim).
        dim: width of the table.
    """
    kind = config.WhichOneof("initializer_oneof") if config is not None else None
    if config is None or kind is None:
        return _truncated_normal(0.0, dim**-0.5)
    if kind == "constant_initializer":
        return _constants(list(config.constant_initializer.consts))
    if kind == "glorot_normal_initializer":
        return _glorot_normal
    if kind == "random_normal_initializer":
        mean, stddev = config.random_normal_initializer.mean, config.random_normal_initializer.stddev
        return lambda table, start, count, seed: tf.random.stateless_normal([count, table.dim], seed, mean, stddev)
    return _truncated_normal(config.truncated_normal_initializer.mean, config.truncated_normal_initializer.stddev)


def _truncated_normal(mean: float, stddev: float) -> InitialValues:
    draw = tf.random.stateless_truncated_normal
    return lambda table, start, count, seed: draw([count, table.dim], seed, mean, stddev)


def _glorot_normal(table: TableSpec, start: int, count: int, seed: tf.Tensor) -> tf.Tensor:
    """Glorot and Bengio (2010): variance 2 / (rows + dim), after the truncation."""
    stddev = math.sqrt(2.0 / (table.rows + table.dim)) / _TRUNCATED_STDDEV
    return _truncated_normal(0.0, stddev)(table, start, count, seed)


def _constants(constants: list[float]) -> InitialValues:
    def initial(table: TableSpec, start: int, count: int, seed: tf.Tensor) -> tf.Tensor:
        shape = [count, table.dim]
        if len(constants) == 1:
            return tf.fill(shape, constants[0])
        if len(constants) != table.rows * table.dim:
            path = f"features[{table.owners[0]}].initializer.constant_initializer.consts"
            expected = f"1 value, or {table.rows} x {table.dim} of them, row by row"
            raise ConfigError([Problem(path, f"{len(constants)} values", expected)])
        return tf.reshape(tf.constant(constants[start * table.dim : (start + count) * table.dim], tf.float32), shape)

    return initial
