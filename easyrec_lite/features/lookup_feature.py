"""LookupFeature: the values that a map holds for a key."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from easyrec_lite.config import Problem
from easyrec_lite.features.base import Columns, ColumnTypes, Feature, Ids, feature_path
from easyrec_lite.features.id_mapping import HashBuckets, mapping_problems
from easyrec_lite.features.tag_feature import split_pairs
from easyrec_lite.features.text import as_text, drop, first_steps, tokens_of
from easyrec_lite.protos import feature_pb2


class LookupFeature(Feature):
    """Ids `[B, None]` of the values that stand under the row's key: of key "b" and map "a:1|b:2|b:3" those of 2 and 3.

    The first column holds the key, the second the map: `key:value` pairs, split by `separator`, with `kv_separator`
    (":" unless set) inside. The first `lookup_max_sel_elem_num` values under the key are hashed; none is a row
    without values.
    """

    inputs_allowed = (2, 2)
    multi_valued = True

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(config)
        self.num_ids = config.hash_bucket_size
        self._hash = HashBuckets(config.hash_bucket_size, config.precision, self.path)
        self._kv_separator = config.kv_separator or ":"

    def encode(self, columns: Columns) -> Ids:
        """See Feature."""
        wanted = self._hash.text(columns[self.inputs[0]])
        pairs = tokens_of(columns[self.inputs[1]], self.config.separator)
        keys, values = split_pairs(as_text(pairs.values), self._kv_separator)
        found = tf.equal(keys, tf.gather(wanted, pairs.value_rowids()))
        kept = first_steps(drop(pairs.with_values(values), found), self.config.lookup_max_sel_elem_num)
        return Ids(kept.with_values(self._hash.tokens(kept.values)))

    @classmethod
    def problems(cls, config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
        """See Feature."""
        yield from super().problems(config, types)
        path = feature_path(config)
        if config.hash_bucket_size:
            yield from mapping_problems(config, types)
        else:
            yield Problem(f"{path}.hash_bucket_size", "not set", "the number of buckets that values are hashed to")
        if not config.separator:
            yield Problem(f"{path}.separator", "''", "the character(s) between the pairs")
        if config.lookup_max_sel_elem_num < 1:
            yield Problem(f"{path}.lookup_max_sel_elem_num", str(config.lookup_max_sel_elem_num), "1 or more")
