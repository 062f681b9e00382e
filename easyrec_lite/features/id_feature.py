"""IdFeature: one value a row, looked up in a table."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.features.base import Columns, ColumnTypes, Feature, Ids
from easyrec_lite.features.id_mapping import id_mapping, mapping_problems
from easyrec_lite.protos import feature_pb2


class IdFeature(Feature):
    """One category a row: `Ids [B]`, -1 where the value is missing.

    '' is missing. So is, with `num_buckets`, a string that is no integer and the integer -1.

    Attributes:
        mapping: of the column's cells.

    Raises:
        ConfigError: (from `encode`) the column holds lists.
    """

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(config)
        self.mapping = id_mapping(config)
        self.num_ids = self.mapping.num_ids

    def encode(self, columns: Columns) -> Ids:
        """See Feature."""
        column = columns[self.inputs[0]]
        if isinstance(column, tf.RaggedTensor):
            raise ConfigError([Problem(f"{self.path}.feature_type", "IdFeature of a column of lists", "TagFeature")])
        return Ids(self.mapping.cells(column))

    def count_unknown(self, columns: Columns) -> tf.Tensor:
        """See Feature."""
        return tf.math.count_nonzero(self.mapping.unknown(columns[self.inputs[0]]))

    @classmethod
    def problems(cls, config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
        """See Feature."""
        yield from super().problems(config, types)
        yield from mapping_problems(config, types)
