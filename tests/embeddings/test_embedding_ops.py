from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.embeddings._ops import bag_numbers, distinct_rows, shares, sum_rows, take, transposed


@pytest.mark.parametrize("dim", [1, 3, 16, 31, 32, 37, 48, 64, 100])
@pytest.mark.parametrize("weighted", [False, True])
def test_sum_rows(dim: int, weighted: bool) -> None:
    random = np.random.default_rng(dim)
    values = random.normal(size=(50, dim)).astype(np.float32)
    index = random.integers(0, 7, 50)  # row 7 of the result stays empty
    weights = random.normal(size=50).astype(np.float32) if weighted else None
    expected = np.zeros((8, dim))
    np.add.at(expected, index, values if weights is None else values * weights[:, None])
    result = sum_rows(
        tf.constant(values), tf.constant(index, tf.int32), 8, None if weights is None else tf.constant(weights)
    )
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_sum_rows_adds_in_order() -> None:
    # In float32 1e8 + 1 is 1e8: only this order gives 1.
    values = tf.constant([[1e8], [1.0], [-1e8], [1.0]])
    assert sum_rows(values, tf.zeros([4], tf.int64), 1).numpy() == [[1.0]]


@pytest.mark.parametrize("dim", [4, 64])
@pytest.mark.parametrize("count", [0, 3])
def test_sum_rows_of_nothing(dim: int, count: int) -> None:
    result = sum_rows(tf.zeros([0, dim]), tf.zeros([0], tf.int32), count)
    np.testing.assert_array_equal(result, np.zeros((count, dim)))


@pytest.mark.parametrize("dim", [4, 64])
def test_gradient_of_sum_rows(dim: int) -> None:
    random = np.random.default_rng(0)
    values = tf.constant(random.normal(size=(5, dim)), tf.float32)
    index, weights = [0, 2, 0, 2, 2], np.array([1.0, 2.0, 3.0, 4.0, -5.0], np.float32)
    upstream = random.normal(size=(4, dim)).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(values)
        sums = sum_rows(values, tf.constant(index), 4, tf.constant(weights), differentiable=True)
        loss = tf.reduce_sum(sums * upstream)
    np.testing.assert_allclose(tape.gradient(loss, values), upstream[index] * weights[:, None], rtol=1e-6)


def test_sum_rows_names_no_gradient_of_its_own_in_an_exported_graph() -> None:
    specs = tf.TensorSpec([None, 32]), tf.TensorSpec([None], tf.int64)
    traced = tf.function(lambda values, index: sum_rows(values, index, 4)).get_concrete_function(*specs)
    assert not any("_gradient_op_type" in operation.node_def.attr for operation in traced.graph.get_operations())


@given(st.lists(st.integers(0, 4)))
@settings(max_examples=50, deadline=None)
def test_bag_numbers(lengths: list[int]) -> None:
    splits = tf.constant(np.concatenate([[0], np.cumsum(lengths)]), tf.int64)
    np.testing.assert_array_equal(bag_numbers(splits), np.repeat(np.arange(len(lengths)), lengths))


def test_shares() -> None:
    present = tf.constant([True, True, False, True, True])
    bags, count = tf.constant([0, 0, 0, 2, 2], tf.int64), tf.constant(3)
    weights = tf.constant([1.0, 3.0, 100.0, 2.0, -2.0])
    expected = {
        ("sum", False): [1, 1, 0, 1, 1],
        ("sum", True): [1, 3, 0, 2, -2],
        ("mean", False): [0.5, 0.5, 0, 0.5, 0.5],
        ("mean", True): [0.25, 0.75, 0, 1, 0],
        ("sqrtn", False): [0.5**0.5, 0.5**0.5, 0, 0.5**0.5, 0.5**0.5],
        ("sqrtn", True): [0.1**0.5, 0.9**0.5, 0, 1, 0],
    }
    for (combiner, weighted), share in expected.items():
        result = shares(combiner, present, bags, count, weights if weighted else None)
        np.testing.assert_allclose(result, share, rtol=1e-6, err_msg=f"{combiner} {weighted}")


def test_distinct_rows() -> None:
    parts = [tf.constant([[5, 0], [7, 5]]), tf.constant([9, 7, 7])]
    distinct, places = distinct_rows(parts, tf.int32)
    np.testing.assert_array_equal(distinct, [0, 5, 7, 9])
    for part, place in zip(parts, places, strict=True):
        np.testing.assert_array_equal(tf.gather(distinct, place), part)


def test_rows_as_columns() -> None:
    matrix = tf.constant([[1, 2], [3, 4], [5, 6]])
    for places in ([0, 1, 2], [1, 2], [2], [2, 0], [1, 1]):
        np.testing.assert_array_equal(transposed(matrix, places), matrix.numpy()[places].T)


@pytest.mark.parametrize("graph", [False, True])
def test_take_and_its_gradient(graph: bool) -> None:
    random = np.random.default_rng(0)
    table = tf.constant(random.normal(size=(6, 3)), tf.float32)
    indices = [tf.constant([[0, 5], [5, 1]]), tf.constant([1, 1, 1]), tf.zeros([0], tf.int32)]
    factors = [random.normal(size=(*index.shape, 3)).astype(np.float32) for index in indices]

    def run(table: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(table)
            parts = take(table, indices)
            loss = tf.add_n([tf.reduce_sum(part * factor) for part, factor in zip(parts, factors, strict=True)])
        return parts, tape.gradient(loss, table)

    parts, gradient = (tf.function(run, autograph=False) if graph else run)(table)
    expected = np.zeros((6, 3))
    for index, factor, part in zip(indices, factors, parts, strict=True):
        np.testing.assert_array_equal(part, table.numpy()[index.numpy()])
        np.add.at(expected, index.numpy(), factor)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
