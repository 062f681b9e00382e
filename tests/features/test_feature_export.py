"""All feature types through a SavedModel."""

from __future__ import annotations

import tensorflow as tf
from conftest import plain
from google.protobuf import text_format

from easyrec_lite.features import build_features
from easyrec_lite.protos import pipeline_pb2

CONFIG = """
features { feature_name: "hashed" input_names: "word" feature_type: IdFeature hash_bucket_size: 100 }
features { feature_name: "listed" input_names: "word" feature_type: IdFeature vocab_list: "a" vocab_list: "b" }
features { feature_name: "own" input_names: "number" feature_type: IdFeature num_buckets: 5 }
features { input_names: "tags" feature_type: TagFeature vocab_list: "a" vocab_list: "c" kv_separator: ":" }
features { feature_name: "x" input_names: "word" input_names: "number" feature_type: ComboFeature hash_bucket_size: 50 }
features { feature_name: "raw" input_names: "price" feature_type: RawFeature max_val: 2 }
features { feature_name: "cut" input_names: "price" feature_type: RawFeature boundaries: [1, 2] }
features { feature_name: "steps" input_names: "steps" feature_type: SequenceFeature num_buckets: 9 max_seq_len: 2 }
features { feature_name: "prices" input_names: "steps" feature_type: SequenceFeature sub_feature_type: RawFeature }
features { feature_name: "map" input_names: "word" input_names: "tags" feature_type: LookupFeature hash_bucket_size: 9 }
"""

COLUMNS = {
    "word": tf.constant(["a", "", "zz"]),
    "number": tf.constant([3, 7, -1], tf.int64),
    "tags": tf.constant(["a:1|c:0.5", "", "x"]),
    "price": tf.constant([0.5, 1.0, 9.0]),
    "steps": tf.constant(["1|2|3", "", "x"]),
}


class _Server(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = build_features(text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig()))

    @tf.function(input_signature=[{k: tf.TensorSpec([None], v.dtype) for k, v in COLUMNS.items()}])
    def encode(self, columns):
        return {name: feature.encode(columns) for name, feature in self.features.items()}


def test_saved_model_gives_the_same(tmp_path):
    server = _Server()
    expected = {name: plain(feature.encode(COLUMNS)) for name, feature in server.features.items()}
    tf.saved_model.save(server, str(tmp_path))
    assert not any((tmp_path / "assets").iterdir())  # vocabularies are part of the graph
    loaded = tf.saved_model.load(str(tmp_path))
    encoded = loaded.encode(COLUMNS)
    assert {name: plain(parts) for name, parts in encoded.items()} == expected
    assert expected["listed"] == [0, -1, 0]
    assert expected["tags"] == ([[0, 1], [], [0]], [[1.0, 0.5], [], [1.0]])


def test_every_number_of_rows(tmp_path):
    server = _Server()
    for rows in (0, 1, 2):
        encoded = server.encode({name: column[:rows] for name, column in COLUMNS.items()})
        for name, parts in encoded.items():
            part = parts[0]
            found = part.nrows() if isinstance(part, tf.RaggedTensor) else len(part)
            assert found == rows, name
