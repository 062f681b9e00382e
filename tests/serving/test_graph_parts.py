"""Counting, cutting and taking out parts of graphs, on graphs small enough to do it by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.serving.costs import Cost, by_type, total
from easyrec_lite.serving.cut import user_state
from easyrec_lite.serving.graph_part import GraphPart, ancestors, observed_shapes

KERNEL = tf.Variable(np.arange(12, dtype=np.float32).reshape(3, 4))
USER, ITEM = tf.constant([[1.0, 2.0, 3.0]]), tf.reshape(tf.range(20.0), [5, 4])


def trace(python: Any, user: tf.TensorSpec | None = None, item: tf.TensorSpec | None = None) -> Any:
    user = user or tf.TensorSpec([1, 3], name="user")
    item = item or tf.TensorSpec([None, 4], name="item")
    return tf.function(python, input_signature=[user, item], autograph=False).get_concrete_function().graph


def cut(graph: Any, user: tf.Tensor = USER, item: tf.Tensor = ITEM) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    shapes = observed_shapes(graph, {"user": user, "item": item})
    one, other = graph.inputs[:2]
    return [tensor.op.type for tensor in user_state([one], [other], graph.outputs, shapes)], shapes


def test_costs_are_counted() -> None:
    graph = trace(lambda user, item: tf.nn.relu(tf.matmul(user, KERNEL) + item))
    _, shapes = cut(graph)
    costs = by_type(graph.get_operations(), shapes)
    assert costs["MatMul"] == Cost(flops=2 * 3 * 4, bytes=4 * 4)
    assert costs["AddV2"] == costs["Relu"] == Cost(flops=20, bytes=80)
    assert total(graph.get_operations(), shapes) == Cost(24 + 40, 16 + 160)


def test_what_runs_in_advance_is_the_product_and_not_its_copies() -> None:
    def copied(user: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        product = tf.matmul(user, KERNEL)
        return tf.reshape(tf.tile(product, [3, 1]), [1, 12])[:, :4] * item

    assert cut(trace(copied))[0] == ["StridedSlice"]  # 4 numbers, computed in advance

    def many(user: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        wide = tf.tile(tf.matmul(user, KERNEL), [10_000, 1])
        return tf.reduce_sum(wide) * item + tf.reduce_sum(wide[None] * item[0])

    # 160 kB to send, or a product of 4 numbers; where that is copied anyway, its sum is not worth sending either.
    assert cut(trace(many))[0] == ["MatMul"]


def test_tables_are_never_looked_up_again() -> None:
    table = tf.Variable(tf.ones([10, 500]))

    def looked_up(user: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.gather(table, user), axis=1) + item[:, 0]

    graph = trace(looked_up, tf.TensorSpec([1], tf.int64, name="user"))
    assert cut(graph, tf.constant([3], tf.int64))[0] == ["Sum"]

    def not_reduced(user: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        return tf.gather(table, user)[:, :4] * item + tf.reduce_sum(tf.gather(table, user) * item[0, 0])

    graph = trace(not_reduced, tf.TensorSpec([1], tf.int64, name="user"))
    # 2 kB instead of an id of 8 bytes.
    assert set(cut(graph, tf.constant([3], tf.int64))[0]) <= {"ResourceGather", "Identity", "StridedSlice"}


def test_parts_give_what_the_whole_gives() -> None:
    def whole(user: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        tf.debugging.Assert(tf.reduce_all(user > 0), ["users are positive"])
        return tf.nn.relu(tf.matmul(user, KERNEL) - item)

    graph = trace(whole)
    shapes = observed_shapes(graph, {"user": USER, "item": ITEM})
    user, item = graph.inputs[:2]
    state = user_state([user], [item], graph.outputs, shapes)
    before, after = GraphPart(graph, [user], state), GraphPart(graph, [*state, item], graph.outputs)
    assert "Assert" in {op.type for op in before.operations.values()}
    assert "Assert" not in {op.type for op in after.operations.values()}
    run = tf.function(lambda u, i: after([*before([u]), i])[0], autograph=False)
    np.testing.assert_array_equal(run(USER, ITEM), np.maximum(USER.numpy() @ KERNEL.numpy() - ITEM.numpy(), 0))
    with pytest.raises(tf.errors.InvalidArgumentError, match="users are positive"):
        run(-USER, ITEM)


def test_a_part_that_lacks_an_input() -> None:
    graph = trace(lambda user, item: tf.matmul(user, KERNEL) + item)
    with pytest.raises(ValueError, match=r"needs inputs that are not fed: \['item'\]"):
        GraphPart(graph, graph.inputs[:1], graph.outputs)
    assert "item" not in ancestors([graph.inputs[0]])
