"""Features encoded together say what each says alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.features import Feature, build_features, encode_features
from easyrec_lite.protos import pipeline_pb2

CONFIG = """
features { feature_name: "few" input_names: "n1" num_buckets: 3 }
features { feature_name: "many" input_names: "n2" num_buckets: 9000000000 }
features { feature_name: "text" input_names: "t1" num_buckets: 7 }
features { feature_name: "text_too" input_names: "t2" num_buckets: 5 }
features { feature_name: "hashed" input_names: "t1" hash_bucket_size: 100 }
features { feature_name: "hashed_too" input_names: "t2" hash_bucket_size: 100 }
features { feature_name: "hashed_other" input_names: "t2" hash_bucket_size: 90 }
features { feature_name: "hashed_number" input_names: "n1" hash_bucket_size: 100 }
features { feature_name: "hashed_number_too" input_names: "n2" hash_bucket_size: 100 }
features { feature_name: "words" input_names: "t1" vocab_list: ["a", "b"] }
features { feature_name: "words_too" input_names: "t2" vocab_list: ["b", "a"] }
features { feature_name: "raw" input_names: "n1" feature_type: RawFeature }
"""
TEXTS = ["", "a", "b", "3", "-1", " 4", "9999999999999999999", "é"]
NUMBERS = [-(2**63), -1, 0, 1, 2, 3, 4, 8_999_999_999, 9_000_000_000, 2**63 - 1]


def features() -> dict[str, Feature]:
    return build_features(text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig()))


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 5).flatmap(
        lambda rows: st.tuples(
            *[st.lists(st.sampled_from(x), min_size=rows, max_size=rows) for x in [NUMBERS, TEXTS] * 2]
        )
    )
)
def test_together_as_alone(cells: tuple[list[int], list[str], list[int], list[str]]) -> None:
    columns = {
        "n1": tf.constant(cells[0], tf.int64),
        "t1": tf.constant(cells[1], tf.string),
        "n2": tf.constant(cells[2], tf.int64),
        "t2": tf.constant(cells[3], tf.string),
    }
    every = features()
    alone = {name: feature.encode(columns) for name, feature in every.items()}
    for together in ([list(every)], [["few", "text"], ["many", "few", "text_too", "hashed"], ["unknown"]]):
        encoded = encode_features(every, columns, together)
        assert encoded.keys() == alone.keys()
        for name, expected in alone.items():
            np.testing.assert_array_equal(encoded[name][0], expected[0], err_msg=name)


def test_columns_of_different_rows_stay_apart() -> None:
    columns = {name: tf.TensorSpec([None], tf.int64) for name in ("n1", "n2")}
    columns |= {"t1": tf.TensorSpec([1], tf.string), "t2": tf.TensorSpec([None], tf.string)}
    every = features()

    def ids(columns):
        return [value[0] for value in encode_features(every, columns, [list(every)]).values()]

    function = tf.function(ids, autograph=False).get_concrete_function(columns)
    stacked = Counter(len(op.inputs) for op in function.graph.get_operations() if op.type == "Pack")
    # few + many, the two hashed numbers, and nothing of t1 and t2: one has one row, the other any number.
    assert stacked[2] == 2
    assert [tuple(x.shape) for x in function.structured_outputs][2:4] == [(1,), (None,)]
