"""ExprFeature: a number computed from several columns."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from easyrec_lite.config import Problem
from easyrec_lite.features.base import Column, Columns, ColumnTypes, Feature, Numbers, feature_path
from easyrec_lite.features.formula import Formula, formula_problems
from easyrec_lite.features.text import parse_integers, parse_numbers
from easyrec_lite.protos import feature_pb2


class ExprFeature(Feature):
    """`Numbers [B, 1]` of a formula over the columns, such as `(clicks + 1) / (views + 10)`.

    Computed in float64, so that large integers such as times keep their digits. A value that is no finite number is 0,
    and so is a result that is none.
    """

    inputs_allowed = (1, None)
    width = 1

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(config)
        self._formula = Formula(config.expression, self.inputs, f"{self.path}.expression")

    def encode(self, columns: Columns) -> Numbers:
        """See Feature."""
        result = self._formula(**{name: _float64(columns[name]) for name in self.inputs})
        return Numbers(tf.cast(result, tf.float32)[:, None])

    def count_unknown(self, columns: Columns) -> tf.Tensor:
        """See Feature."""
        count = tf.zeros([], tf.int64)
        for name in self.inputs:
            invalid = ~parse_numbers(columns[name])[1]
            if columns[name].dtype == tf.string:
                invalid &= tf.not_equal(columns[name], "")
            count += tf.math.count_nonzero(invalid)
        return count

    @classmethod
    def problems(cls, config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
        """See Feature."""
        yield from super().problems(config, types)
        path = f"{feature_path(config)}.expression"
        if config.expression:
            yield from formula_problems(config.expression, tuple(config.input_names), path)
        else:
            yield Problem(path, "not set", "a formula over the columns of input_names")


def _float64(column: Column) -> tf.Tensor:
    if column.dtype.is_integer:
        return tf.cast(column, tf.float64)
    numbers = tf.cast(parse_numbers(column)[0], tf.float64)
    if column.dtype != tf.string:
        return numbers
    integers, exact = parse_integers(column)
    return tf.where(exact, tf.cast(integers, tf.float64), numbers)
