"""RawFeature: numbers, as they are or cut into buckets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import tensorflow as tf

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.features.base import Column, Columns, ColumnTypes, Encoded, Feature, Ids, Numbers, feature_path
from easyrec_lite.features.number_mapping import NumberMapping, number_problems
from easyrec_lite.features.text import parse_numbers, split_steps
from easyrec_lite.protos import feature_pb2

_COMBINERS: Mapping[str, Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "sum": tf.math.unsorted_segment_sum,
    "mean": tf.math.unsorted_segment_mean,
    "max": tf.math.unsorted_segment_max,
    "min": tf.math.unsorted_segment_min,
}


class RawFeature(Feature):
    """D = `raw_input_dim` numbers a row.

    Output: `Numbers [B, D]`; or with `boundaries`, or `num_buckets` between `min_val` and `max_val`, `Ids [B]`. With
    D > 1 buckets are `Ids [B, D]` (ragged), bucket b of number d having the id d * buckets + b.

    A string holds D numbers split by `separator`; those left out at the end, and any that is not readable or not
    finite, are 0 before scaling. With `seq_multi_sep` it holds several vectors of D numbers, which `combiner` (sum,
    mean, max, min) makes one; no vector gives zeros.
    """

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(config)
        self._numbers = NumberMapping(config)
        self._dim = max(config.raw_input_dim, 1)
        if self._numbers.num_ids is None:
            self.width = self._dim
        else:
            self.num_ids = self._numbers.num_ids * self._dim
            self.multi_valued = self._dim > 1

    def encode(self, columns: Columns) -> Encoded:
        """See Feature."""
        numbers = self._numbers.normalize(self._read(columns[self.inputs[0]])[0])
        if self._numbers.num_ids is None:
            return Numbers(numbers)
        buckets = self._numbers.bucketize(numbers)
        if self._dim == 1:
            return Ids(tf.reshape(buckets, [-1]))
        return Ids(tf.RaggedTensor.from_tensor(buckets + tf.range(self._dim, dtype=tf.int64) * self._numbers.num_ids))

    def count_unknown(self, columns: Columns) -> tf.Tensor:
        """See Feature."""
        column = columns[self.inputs[0]]
        given, valid = self._read(column)[1:]
        return tf.math.count_nonzero(given & ~valid)

    def _read(self, column: Column) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Numbers `[B, D]`; and, per number that was read, whether something was given and whether it is valid."""
        if isinstance(column, tf.Tensor) and column.dtype == tf.string and self.config.seq_multi_sep:
            return self._combine(column)
        cells = vectors(column, self.config.separator, self._dim, self.path)
        numbers, valid = parse_numbers(cells)
        given = tf.not_equal(cells, "") if cells.dtype == tf.string else tf.ones_like(valid)
        return numbers, given, valid

    def _combine(self, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        parts = split_steps(column, self.config.seq_multi_sep)
        cells = vectors(parts.values, self.config.separator, self._dim, self.path)
        numbers, valid = parse_numbers(cells)
        combined = _COMBINERS[self.config.combiner](numbers, parts.value_rowids(), parts.nrows())
        filled = parts.row_lengths()[:, None] > 0  # the maximum of nothing is not 0
        return tf.where(filled, combined, 0.0), tf.not_equal(cells, ""), valid

    @classmethod
    def problems(cls, config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
        """See Feature."""
        yield from super().problems(config, types)
        yield from number_problems(config)
        path = feature_path(config)
        if config.raw_input_dim > 1 and not config.separator:
            yield Problem(f"{path}.separator", "''", "the character(s) between the numbers")
        if config.seq_multi_sep and config.combiner not in _COMBINERS:
            yield Problem(f"{path}.combiner", config.combiner, f"one of {', '.join(_COMBINERS)}")


def vectors(column: Column, separator: str, dim: int, path: str) -> tf.Tensor:
    """Cells `[N, dim]`, not yet numbers where the column is a string: '' (or 0) stands for what a row leaves out.

    Args:
        column: string `[N]`, of cells split by `separator`; numbers `[N]` (dim 1) or `[N, dim]`; or a ragged column of
            either, `[N, None]`.
        separator: between cells.
        dim: cells a row; further ones are left out.
        path: the feature's path, for errors.

    Raises:
        ConfigError: a column of single numbers, where dim is more than 1.
    """
    if isinstance(column, tf.Tensor):
        if dim == 1 or column.shape.rank == 2:
            return tf.reshape(column, [-1, dim])
        if column.dtype != tf.string:
            found = f"{dim}, of a column with one {column.dtype.name} a row"
            raise ConfigError([Problem(f"{path}.raw_input_dim", found, "1, or a column of strings or lists")])
        column = split_steps(column, separator)
    return column.to_tensor(shape=[None, dim])
