"""IdFeature: one value a row, looked up in a table."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from easyrec_lite.config.problems import Problem
from easyrec_lite.features.base import Columns, ColumnTypes, Feature, Ids
from easyrec_lite.features.id_mapping import id_mapping, mapping_problems
from easyrec_lite.protos import feature_pb2


class IdFeature(Feature):
    """One category a row: `Ids [B]`, -1 where the value is missing.

    '' is missing. So is, with `num_buckets`, a string that is no integer and the integer -1. A list column gives all
    its values, `[B, None]`.
    """

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(config)
        self._mapping = id_mapping(config)
        self.num_ids = self._mapping.num_ids

    def encode(self, columns: Columns) -> Ids:
        column = columns[self.inputs[0]]
        if isinstance(column, tf.RaggedTensor):
            return Ids(column.with_flat_values(self._mapping.tokens(column.flat_values)))
        return Ids(self._mapping.cells(column))

    def count_unknown(self, columns: Columns) -> tf.Tensor:
        column = columns[self.inputs[0]]
        values = column.flat_values if isinstance(column, tf.RaggedTensor) else column
        return tf.math.count_nonzero(self._mapping.unknown(values))

    @classmethod
    def problems(cls, config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
        yield from super().problems(config, types)
        yield from mapping_problems(config, types)
