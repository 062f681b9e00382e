"""ComboFeature: a cross of several columns, hashed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import tensorflow as tf

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.features.base import Column, Columns, ColumnTypes, Feature, Ids, feature_path
from easyrec_lite.features.id_mapping import HashBuckets, mapping_problems
from easyrec_lite.features.text import tokens_of
from easyrec_lite.protos import feature_pb2


class ComboFeature(Feature):
    """Every combination of the values of two or more columns: `Ids [B]`; `Ids [B, None]` if a column has several.

    Without `combo_join_sep` the ids are those of TensorFlow's crossed columns with the default hash key, as in EasyRec:
    fingerprints of strings, chained by FingerprintCat64, modulo `hash_bucket_size`; integers enter as they are, not as
    strings. With it the strings are joined and the result hashed like an IdFeature's.

    A column has several values if `combo_input_seps` gives it a separator, and may then hold lists. Such columns enter
    the cross, or the joined string, before those of one value (the order of TensorFlow's op, so EasyRec's too). A row
    where one of them is empty has no combination; '' in a column of one value is a value like any other.
    """

    inputs_allowed = (2, None)

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(config)
        self.num_ids = config.hash_bucket_size
        self._hash = HashBuckets(config.hash_bucket_size, config.precision, self.path)
        self._separators = tuple(config.combo_input_seps) or ("",) * len(self.inputs)
        self.multi_valued = any(self._separators)

    def encode(self, columns: Columns) -> Ids:
        """See Feature."""
        values = [self._values(columns[name], sep) for name, sep in zip(self.inputs, self._separators, strict=True)]
        separator = self.config.combo_join_sep
        if separator:
            values = [_map(value, self._hash.text) for value in values]
        if not any(isinstance(value, tf.RaggedTensor) for value in values):
            if separator:
                return Ids(self._hash.tokens(tf.strings.join(values, separator)))
            crossed = tf.sparse.cross_hashed([value[:, None] for value in values], self.num_ids)
            return Ids(tf.ensure_shape(crossed.values, values[0].shape))
        parts = [v.to_sparse() if isinstance(v, tf.RaggedTensor) else v[:, None] for v in values]
        if separator:
            crossed = tf.sparse.cross(parts, separator=separator)
            ids = self._hash.tokens(crossed.values)
        else:
            crossed = tf.sparse.cross_hashed(parts, self.num_ids)
            ids = crossed.values
        nrows = crossed.dense_shape[0]
        return Ids(tf.RaggedTensor.from_value_rowids(ids, crossed.indices[:, 0], nrows=nrows, validate=False))

    def _values(self, column: Column, separator: str) -> Column:
        """String or int64, `[B]` or ragged."""
        if separator:
            column = tokens_of(column, separator)
        elif isinstance(column, tf.RaggedTensor):
            found = "no separator for a column of lists"
            raise ConfigError([Problem(f"{self.path}.combo_input_seps", found, "any character, to mark the column")])
        return _map(column, self._hash.text) if column.dtype.is_floating else column

    @classmethod
    def problems(cls, config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
        """See Feature."""
        yield from super().problems(config, types)
        path = feature_path(config)
        if config.hash_bucket_size:
            yield from mapping_problems(config, types)
        else:
            yield Problem(f"{path}.hash_bucket_size", "not set", "the number of buckets to hash to")
        separators, inputs = len(config.combo_input_seps), len(config.input_names)
        if separators and separators != inputs:
            yield Problem(
                f"{path}.combo_input_seps",
                f"{separators} separators for {inputs} columns",
                "one for each of input_names, '' where a column has one value a row",
            )


def _map(column: Column, function: Callable[[tf.Tensor], tf.Tensor]) -> Column:
    """Applies `function` to the values of a column, `[B]` or ragged."""
    if isinstance(column, tf.RaggedTensor):
        return column.with_flat_values(function(column.flat_values))
    return function(column)
