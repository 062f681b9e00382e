"""Logical embedding tables and their initial values."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import tensorflow as tf

from easyrec_lite.protos import feature_pb2

# (shape, seed [2] int32) -> float32 values; a pure function, so that a table does not depend on its neighbours.
InitialValues = Callable[[tuple[int, int], tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class TableSpec:
    """One logical table.

    Attributes:
        name: the name under which checkpoints, warm start and export see it.
        rows: number of ids; valid ids are 0 .. rows-1.
        dim: width of a row.
        owners: names of the features that look it up.
        initial: initial values; truncated normal with standard deviation 1/sqrt(dim) unless the config says otherwise.
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

    def seed(self, seed: int) -> tf.Tensor:
        """The table's own seed [2], a function of the run's seed and the table's name."""
        return tf.constant([seed & 0x7FFFFFFF, zlib.crc32(self.name.encode()) & 0x7FFFFFFF], tf.int32)


def table_initializer(config: feature_pb2.Initializer | None, dim: int) -> InitialValues:
    """Initial values as `FeatureConfig.initializer` gives them; the default is EasyRec's truncated normal."""
    kind = config.WhichOneof("initializer_oneof") if config is not None else None
    if kind == "constant_initializer":
        constants = list(config.constant_initializer.consts) or [0.0]  # type: ignore[union-attr]
        row = tf.constant((constants * dim)[:dim] if len(constants) == 1 else constants, tf.float32)
        return lambda shape, seed: tf.broadcast_to(row, shape)
    if kind == "random_normal_initializer":
        normal = config.random_normal_initializer  # type: ignore[union-attr]
        mean, stddev = normal.mean, normal.stddev
        return lambda shape, seed: tf.random.stateless_normal(shape, seed, mean, stddev)
    if kind == "truncated_normal_initializer":
        truncated = config.truncated_normal_initializer  # type: ignore[union-attr]
        mean, stddev = truncated.mean, truncated.stddev
    else:
        # A table is used as one-hot rows, so Glorot's fan-in + fan-out has no useful meaning per row: its width decides.
        mean, stddev = 0.0, 1.0 / math.sqrt(dim)
    return lambda shape, seed: tf.random.stateless_truncated_normal(shape, seed, mean, stddev)
