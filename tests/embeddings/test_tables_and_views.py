from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from embedding_reference import read, spec, view
from google.protobuf import text_format

from easyrec_lite.config import ConfigError
from easyrec_lite.embeddings import Adagrad, Adam, Concat, EmbeddingCollection, TableSpec, table_initializer, tables
from easyrec_lite.embeddings.views import write_block
from easyrec_lite.protos import feature_pb2


def initial(text: str | None, rows: int, dim: int, seed: int = 1) -> np.ndarray:
    config = None if text is None else text_format.Parse(text, feature_pb2.Initializer())
    table = TableSpec("table", rows, dim, ("item_id",), table_initializer(config, dim))
    return np.concatenate([values.numpy() for _, values in table.initial_blocks(seed)])


def test_default_is_truncated_normal_of_the_width() -> None:
    values = initial(None, 20_000, 16)
    assert values.shape == (20_000, 16)
    assert abs(values).max() <= 2 / 4
    np.testing.assert_allclose([values.mean(), values.std()], [0.0, 0.8796 / 4], atol=2e-3)
    np.testing.assert_array_equal(values, initial("", 20_000, 16))


def test_initializers_of_the_config() -> None:
    values = initial("truncated_normal_initializer { mean: 1 stddev: 0.5 }", 20_000, 4)
    assert abs(values - 1).max() <= 1.0
    np.testing.assert_allclose([values.mean(), values.std()], [1.0, 0.8796 * 0.5], atol=5e-3)
    values = initial("random_normal_initializer { mean: -1 stddev: 0.5 }", 20_000, 4)
    assert abs(values + 1).max() > 1.0
    np.testing.assert_allclose([values.mean(), values.std()], [-1.0, 0.5], atol=5e-3)
    values = initial("glorot_normal_initializer {}", 20_000, 4)
    np.testing.assert_allclose([values.mean(), values.std()], [0.0, np.sqrt(2 / 20_004)], atol=2e-4)
    np.testing.assert_array_equal(initial("constant_initializer { consts: 0.5 }", 3, 2), np.full((3, 2), 0.5))


def test_constants_fill_a_table_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"constant_initializer {{ {' '.join(f'consts: {i}' for i in range(10))} }}"
    np.testing.assert_array_equal(initial(text, 5, 2), np.arange(10).reshape(5, 2))
    monkeypatch.setattr(tables, "_BLOCK_VALUES", 4)
    np.testing.assert_array_equal(initial(text, 5, 2), np.arange(10).reshape(5, 2))


@pytest.mark.parametrize("count", [0, 2, 5, 7])
def test_constants_that_do_not_fit(count: int) -> None:
    text = f"constant_initializer {{ {'consts: 1 ' * count}}}"
    with pytest.raises(ConfigError, match=f"found {count} values, expected 1 value, or 3 x 2") as error:
        initial(text, 3, 2)
    assert error.value.problems[0].path == "features[item_id].initializer.constant_initializer.consts"


def test_blocks_differ_from_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_BLOCK_VALUES", 8)
    values = initial(None, 7, 4)
    assert values.shape == (7, 4)
    assert len(np.unique(values)) == 28
    monkeypatch.setattr(tables, "_BLOCK_VALUES", 1)  # a row wider than a block is a block
    assert initial(None, 3, 4).shape == (3, 4)


def test_bytes() -> None:
    assert spec("a", 10, 4).bytes == 160


def build() -> EmbeddingCollection:
    requests = [Concat(("a", "b"), ("a", "b")), Concat(("a",), ("wide",))]
    return EmbeddingCollection([spec("a", 5, 4), spec("b", 3, 4), spec("wide", 5, 1, "a")], requests, Adam())


def test_views_have_logical_names_and_shapes() -> None:
    collection = build()
    assert {view.name: view.shape for view in collection.views()} == {
        f"embeddings/{table}/{part}": shape
        for table, shape in (("a", (5, 4)), ("b", (3, 4)), ("wide", (5, 1)))
        for part in ("weights", "m", "v")
    }
    assert [view.name for view in collection.views(with_slots=False)] == [
        "embeddings/a/weights",
        "embeddings/b/weights",
        "embeddings/wide/weights",
    ]
    assert {view.dtype for view in collection.views()} == {np.dtype(np.float32)}


def test_views_round_trip_and_touch_nothing_else() -> None:
    collection = build()
    expected = {}
    for number, found in enumerate(collection.views()):
        expected[found.name] = number + np.arange(np.prod(found.shape), dtype=np.float32).reshape(found.shape) / 100
        found.write(0, expected[found.name])
    for found in collection.views():
        np.testing.assert_array_equal(found.read(0, found.shape[0]), expected[found.name])
    part = view(collection, "b/m")
    part.write(1, np.full((2, 4), 9.0))
    expected[part.name][1:3] = 9.0
    for found in collection.views():
        np.testing.assert_array_equal(found.read(0, found.shape[0]), expected[found.name])
        np.testing.assert_array_equal(found.read(1, 3), expected[found.name][1:3])
        assert found.read(2, 2).shape == (0, found.shape[1])
        found.write(1, np.zeros((0, found.shape[1])))
    assert not any(np.any(variable[0]) for variable in collection.variables_by_bucket.values())


def test_writing_a_block_does_not_read_the_variable() -> None:
    variable = tf.Variable(tf.zeros([5, 4]))
    function = tf.function(lambda: write_block(variable, 1, 2, tf.ones([3, 2])), autograph=False)
    kinds = {operation.type for operation in function.get_concrete_function().graph.get_operations()}
    assert "ResourceStridedSliceAssign" in kinds
    assert "ReadVariableOp" not in kinds
    function()
    expected = np.zeros((5, 4))
    expected[1:4, 2:] = 1.0
    np.testing.assert_array_equal(variable, expected)


def test_reading_gives_a_copy() -> None:
    collection = build()
    before = read(collection, "a/weights")
    read(collection, "a/weights")[:] = 7.0
    np.testing.assert_array_equal(read(collection, "a/weights"), before)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 4), (3, 2)])
def test_rows_of_other_tables_are_out_of_reach(start: int, stop: int) -> None:
    found = view(build(), "b/weights")
    with pytest.raises(IndexError, match=r"embeddings/b/weights has rows 0 \.\. 2"):
        found.read(start, stop)
    if stop > start:
        with pytest.raises(IndexError, match="Received"):
            found.write(start, np.zeros((stop - start, 4)))


def test_slots_start_as_the_optimizer_says() -> None:
    collection = EmbeddingCollection([spec("a", 5, 4)], [], Adagrad(0.25))
    np.testing.assert_array_equal(read(collection, "a/accumulator"), np.full((5, 4), 0.25))
    np.testing.assert_array_equal(collection.variables_by_bucket["dim4"][0], np.zeros(8))


def test_views_see_what_training_writes() -> None:
    collection = build()
    variable = collection.variables_by_bucket["dim4"]
    tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=[6], updates=tf.range(12.0)[None])
    np.testing.assert_array_equal(view(collection, "b/weights").read(0, 1), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(view(collection, "b/v").read(0, 1), [[8, 9, 10, 11]])
    view(collection, "b/v").write(0, np.ones((1, 4)))
    np.testing.assert_array_equal(variable[6], [0, 1, 2, 3, 4, 5, 6, 7, 1, 1, 1, 1])
