"""SequenceFeature: the ordered steps of a history."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from easyrec_lite.config import Problem
from easyrec_lite.features.base import Columns, ColumnTypes, Encoded, Feature, Ids, Numbers, feature_path
from easyrec_lite.features.id_mapping import id_mapping, mapping_problems
from easyrec_lite.features.number_mapping import NumberMapping, number_problems
from easyrec_lite.features.raw_feature import vectors
from easyrec_lite.features.text import first_steps, one_each, parse_numbers, split_steps, split_tokens
from easyrec_lite.protos import feature_pb2

_Type = feature_pb2.FeatureConfig.FeatureType


class SequenceFeature(Feature):
    """Steps in the order of the row; the first `max_seq_len` of them are kept.

    Output by `sub_feature_type`:

    - IdFeature: `Ids [B, None]`; `[B, None, None]` if steps have several values, split by `seq_multi_sep`.
    - RawFeature with `boundaries`, or `num_buckets` between `min_val` and `max_val`: `Ids [B, None]`, a bucket a step.
    - RawFeature else: `Numbers [B, None, D]`, D = `raw_input_dim` numbers a step, split by `seq_multi_sep` and filled
      up with 0; `sequence_length`, where set, limits the steps too.

    A string is split by `separator`; list columns are taken as they are. The empty string is a row without steps (in
    EasyRec: one step of ''). An empty step between two others stays, so that parallel sequences stay aligned: its ''
    is hashed as in EasyRec, or is id -1 or the number 0 where it would have to be one.
    """

    is_sequence = True

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(config)
        self._dim = max(config.raw_input_dim, 1)
        self._mapping = self._numbers = None
        self._most: int | None = config.max_seq_len or None
        if config.sub_feature_type != _Type.RawFeature:
            self._mapping = id_mapping(config)
            self.num_ids = self._mapping.num_ids
            return
        self._numbers = NumberMapping(config)
        self.num_ids = self._numbers.num_ids
        if self.num_ids is None:
            self.width = self._dim
            if config.HasField("sequence_length"):
                self._most = min(self._most or config.sequence_length, config.sequence_length)

    def encode(self, columns: Columns) -> Encoded:
        """See Feature."""
        steps = self._steps(columns)
        if self._mapping is not None:
            steps = self._split_values(steps)
            ids = steps.with_flat_values(self._mapping.tokens(steps.flat_values))
            return Ids(self._first(ids))  # ids are cheaper to copy than strings
        assert self._numbers is not None
        steps = self._first(steps)
        numbers = self._numbers.normalize(parse_numbers(self._cells(steps))[0])
        if self.num_ids is None:
            return Numbers(tf.RaggedTensor.from_row_splits(numbers, steps.row_splits, validate=False))
        return Ids(steps.with_values(tf.reshape(self._numbers.bucketize(numbers), [-1])))

    def count_unknown(self, columns: Columns) -> tf.Tensor:
        """See Feature."""
        steps = self._first(self._steps(columns))
        if self._mapping is not None:
            return tf.math.count_nonzero(self._mapping.unknown(self._split_values(steps).flat_values))
        cells = self._cells(steps)
        invalid = ~parse_numbers(cells)[1]
        return tf.math.count_nonzero(invalid & tf.not_equal(cells, "") if cells.dtype == tf.string else invalid)

    def _steps(self, columns: Columns) -> tf.RaggedTensor:
        """All steps `[B, None]`, or `[B, None, None]` where the column is a list of lists."""
        column = columns[self.inputs[0]]
        if isinstance(column, tf.RaggedTensor):
            return column
        return split_steps(column, self.config.separator) if column.dtype == tf.string else one_each(column)

    def _first(self, steps: tf.RaggedTensor) -> tf.RaggedTensor:
        return steps if self._most is None else first_steps(steps, self._most)

    def _split_values(self, steps: tf.RaggedTensor) -> tf.RaggedTensor:
        """Steps whose values are split, if they have several: `[B, None, None]`."""
        if self.config.seq_multi_sep and steps.ragged_rank == 1 and steps.dtype == tf.string:
            return steps.with_values(split_tokens(steps.values, self.config.seq_multi_sep))
        return steps

    def _cells(self, steps: tf.RaggedTensor) -> tf.Tensor:
        """The numbers of each step, `[N, D]`, not yet parsed."""
        return vectors(steps.values, self.config.seq_multi_sep, self._dim, self.path)

    @classmethod
    def problems(cls, config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
        """See Feature."""
        yield from super().problems(config, types)
        path = feature_path(config)
        if not config.separator:
            yield Problem(f"{path}.separator", "''", "the character(s) between the steps")
        if config.seq_multi_sep and config.seq_multi_sep == config.separator:
            yield Problem(f"{path}.seq_multi_sep", config.seq_multi_sep, "another character than separator")
        if config.sub_feature_type == _Type.IdFeature:
            yield from mapping_problems(config, types)
        elif config.sub_feature_type == _Type.RawFeature:
            yield from number_problems(config)
            if config.raw_input_dim > 1 and not config.seq_multi_sep:
                yield Problem(f"{path}.seq_multi_sep", "not set", "the character between the numbers of a step")
            if config.raw_input_dim > 1 and NumberMapping(config).num_ids is not None:
                yield Problem(f"{path}.raw_input_dim", str(config.raw_input_dim), "1, where numbers become buckets")
        else:
            found = _Type.Name(config.sub_feature_type)
            yield Problem(f"{path}.sub_feature_type", found, "IdFeature or RawFeature")
