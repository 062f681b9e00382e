from __future__ import annotations

import pytest
import tensorflow as tf

from easyrec_lite.features import Labels
from easyrec_lite.features.labels import label_problems
from easyrec_lite.protos import data_pb2


def test_numbers_and_strings():
    labels = Labels(data_pb2.DatasetConfig(label_fields=["click", "price"]))
    found, weight = labels({"click": tf.constant([1, 0], tf.int64), "price": tf.constant(["2.5", "-1"])})
    assert found["click"].dtype == tf.float32
    assert found["click"].numpy().tolist() == [1, 0]
    assert found["price"].numpy().tolist() == [2.5, -1]
    assert weight is None
    assert labels.columns == labels.names == ("click", "price")


def test_sample_weight():
    labels = Labels(data_pb2.DatasetConfig(label_fields=["click"], sample_weight="w"))
    _, weight = labels({"click": tf.constant([1.0]), "w": tf.constant(["0.5"])})
    assert weight.numpy().tolist() == [0.5]
    assert labels.columns == ("click", "w")


def test_label_of_several_numbers():
    config = data_pb2.DatasetConfig(label_fields=["a", "b", "c"], label_sep=["#", ";"], label_dim=[1, 2])
    columns = {"a": tf.constant(["1", "2"]), "b": tf.constant(["1;2", "3;4"]), "c": tf.constant([5.0, 6.0])}
    found, _ = Labels(config)(columns)
    assert {name: label.numpy().tolist() for name, label in found.items()} == {
        "a": [1, 2],
        "b": [[1, 2], [3, 4]],
        "c": [5, 6],
    }
    columns["b"] = tf.ragged.constant([[1.0, 2.0], [3.0, 4.0]])
    assert Labels(config)(columns)[0]["b"].numpy().tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("column", "dim"), [(["1", "x"], 1), ([1.0, float("nan")], 1), (["1,2", "3"], 2), (["1", ""], 1)]
)
def test_a_label_is_never_guessed(column, dim):
    labels = Labels(data_pb2.DatasetConfig(label_fields=["click"], label_dim=[dim]))
    batches = tf.data.Dataset.from_tensors({"click": tf.constant(column)}).map(labels)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Label column click: found a"):
        next(iter(batches))


def test_problems():
    config = data_pb2.DatasetConfig(label_fields=["a"], label_dim=[0, 1])
    config.extra_label_func.add(label_name="b", label_func="my.module.fn")
    paths = [problem.path for problem in label_problems(config)]
    assert paths == ["data_config.label_dim", "data_config.label_dim", "data_config.extra_label_func"]
