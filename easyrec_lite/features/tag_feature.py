"""TagFeature: several values a row, with or without weights."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from easyrec_lite.config import Problem
from easyrec_lite.features.base import Column, Columns, ColumnTypes, Feature, Ids, feature_path
from easyrec_lite.features.id_mapping import Buckets, id_mapping, mapping_problems
from easyrec_lite.features.text import drop, parse_numbers, tokens_of
from easyrec_lite.protos import feature_pb2


class TagFeature(Feature):
    """A bag of categories: `Ids [B, None]`, in the order of the row, repetitions kept.

    A string is split by `separator`; empty tokens, and with `num_buckets` tokens that are no integer, are left out. A
    list column is taken as it is.

    Weights come from the tokens, `a:0.5|b:2` with `kv_separator` ":", or from a second column with one weight a token.
    A token without `:weight` weighs 1. What can't be read weighs 0, and so do all tokens of a row whose second column
    has another number of weights than it has tokens: such a row counts as one without tags, rather than getting
    weights that belong to other tokens.
    """

    inputs_allowed = (1, 2)
    multi_valued = True

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(config)
        self._mapping = id_mapping(config)
        self.num_ids = self._mapping.num_ids
        self.weighted = bool(config.kv_separator) or len(self.inputs) > 1

    def encode(self, columns: Columns) -> Ids:
        """See Feature."""
        tokens, weights = self._tokens(columns)
        ids = self._mapping.tokens(tokens.values)
        if isinstance(self._mapping, Buckets) and tokens.dtype == tf.string:
            readable = ids >= 0
            tokens, ids = drop(tokens, readable), tf.boolean_mask(ids, readable)
            weights = None if weights is None else tf.boolean_mask(weights, readable)
        return Ids(tokens.with_values(ids), None if weights is None else tokens.with_values(weights))

    def count_unknown(self, columns: Columns) -> tf.Tensor:
        """See Feature."""
        return tf.math.count_nonzero(self._mapping.unknown(self._tokens(columns)[0].values))

    def _tokens(self, columns: Columns) -> tuple[tf.RaggedTensor, tf.Tensor | None]:
        """Tokens `[B, None]` and their weights, flat."""
        tokens = tokens_of(columns[self.inputs[0]], self.config.separator)
        if len(self.inputs) > 1:
            return tokens, self._second_column(tokens, columns[self.inputs[1]])
        if self.config.kv_separator and tokens.dtype == tf.string:
            keys, weights = split_pairs(tokens.values, self.config.kv_separator)
            return tokens.with_values(keys), parse_numbers(weights)[0]
        return tokens, tf.ones_like(tokens.values, tf.float32) if self.weighted else None

    def _second_column(self, tokens: tf.RaggedTensor, column: Column) -> tf.Tensor:
        weights = tokens_of(column, self.config.separator)
        lengths = tokens.row_lengths()
        equal = tf.equal(lengths, weights.row_lengths())
        rows = tokens.value_rowids()
        shift = weights.row_starts() - tokens.row_starts()
        places = tf.range(tf.size(rows, out_type=tf.int64)) + tf.gather(shift, rows)
        usable = tf.gather(equal, rows)
        # One weight more, so that a batch without any can be read; place -1 - a mismatched row's - reads it.
        padded = tf.concat([[0.0], parse_numbers(weights.values)[0]], axis=0)
        return tf.gather(padded, tf.where(usable, places + 1, 0))

    @classmethod
    def problems(cls, config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
        """See Feature."""
        yield from super().problems(config, types)
        yield from mapping_problems(config, types)
        path = feature_path(config)
        if not config.separator:
            yield Problem(f"{path}.separator", "''", "the character(s) between the tokens")
        if config.kv_separator and len(config.input_names) > 1:
            yield Problem(
                f"{path}.kv_separator",
                f"{config.kv_separator!r} and a second column, {config.input_names[1]}",
                "weights from one place",
                "remove kv_separator or the second input name",
            )
        if config.kv_separator and config.kv_separator == config.separator:
            yield Problem(f"{path}.kv_separator", config.kv_separator, "another character than separator")
        if config.combiner not in ("sum", "mean", "sqrtn"):
            yield Problem(f"{path}.combiner", config.combiner, "one of sum, mean, sqrtn")


def split_pairs(tokens: tf.Tensor, separator: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Keys and values of `key:value` strings, both string `[N]`; the value of a token without separator is '1'."""
    parts = tf.strings.split(tokens, separator, maxsplit=1)
    starts = parts.row_starts()
    paired = tf.equal(parts.row_lengths(), 2)
    values = tf.gather(parts.values, starts + tf.cast(paired, tf.int64))
    return tf.gather(parts.values, starts), tf.where(paired, values, "1")
