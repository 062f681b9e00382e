from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf
from embedding_reference import adagrad, adam, dense, ragged, read, spec
from google.protobuf import text_format

from easyrec_lite.config import ConfigError
from easyrec_lite.embeddings import (
    Adagrad,
    Adam,
    Concat,
    EmbeddingCollection,
    Plan,
    Pooled,
    RowOptimizer,
    build_row_optimizer,
)
from easyrec_lite.features import Ids
from easyrec_lite.protos import optimizer_pb2

ROWS, DIM = 6, 3
# Rows touched in some steps only, twice in one batch, and missing ids in either of two features.
BATCHES = [
    ([1, 1, 4], [[2, 2], [], [1]]),
    ([-1, 0, -1], [[-1], [], [0, 5]]),
    ([4, 1, 1], [[4], [4], [4]]),
    ([1, 2, 3], [[], [], []]),
]


def build(optimizer: RowOptimizer, dense_decay: bool = False) -> EmbeddingCollection:
    requests = [Concat(("x",), ("table",)), Pooled("bag", "table", "sum"), Concat(("x",), ("wide",))]
    tables = [spec("table", ROWS, DIM, "x", "bag"), spec("wide", ROWS, 1, "x")]
    return EmbeddingCollection(tables, requests, optimizer, dense_decay=dense_decay)


def encode(batch: tuple[list[int], list[list[int]]]) -> dict[str, Ids]:
    return {"x": dense(*batch[0]), "bag": ragged(batch[1])}


def step(
    collection: EmbeddingCollection, plan: Plan, factors: Sequence[tf.Tensor], rate: tf.Tensor, number: tf.Tensor
) -> None:
    """One step on the loss sum(outputs * factors), whose gradient is known."""
    packed = collection.gather(plan)
    weights = collection.weights(packed)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        outputs = collection.outputs(weights, plan)
        loss = tf.add_n([tf.reduce_sum(output * factor) for output, factor in zip(outputs, factors, strict=True)])
    collection.update(plan, packed, tape.gradient(loss, weights), rate, number)


def factors_of(number: int) -> list[np.ndarray]:
    random = np.random.default_rng(number)
    return [random.normal(size=(3, width)).astype(np.float32) for width in (DIM, DIM, 1)]


def gradients(batch: tuple[list[int], list[list[int]]], factors: list[np.ndarray]) -> dict[str, dict[int, np.ndarray]]:
    """By table: gradient of each row that the batch names."""
    found: dict[str, dict[int, np.ndarray]] = {"table": {}, "wide": {}}
    places = [("table", i, factors[0][n]) for n, i in enumerate(batch[0])]
    places += [("table", i, factors[1][n]) for n, bag in enumerate(batch[1]) for i in bag]
    places += [("wide", i, factors[2][n]) for n, i in enumerate(batch[0])]
    for table, i, factor in places:
        if i >= 0:
            found[table][i] = found[table].get(i, 0.0) + factor
    return found


def state_of(collection: EmbeddingCollection, table: str, slots: Sequence[str]) -> list[np.ndarray]:
    return [read(collection, f"{table}/{part}").astype(np.float64) for part in ("weights", *slots)]


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("optimizer", [Adam(0.8, 0.95, 1e-4), Adagrad(0.2, 1e-3)], ids=["adam", "adagrad"])
def test_lazy_steps_row_by_row(optimizer: RowOptimizer, graph: bool) -> None:
    collection = build(optimizer)
    states = {table: state_of(collection, table, optimizer.slots) for table in ("table", "wide")}
    run = tf.function(step, autograph=False, reduce_retracing=True) if graph else step
    for number, batch in enumerate(BATCHES, start=1):
        factors, rate = factors_of(number), 0.1 / number
        plan = collection.plan(encode(batch))
        run(collection, plan, [tf.constant(f) for f in factors], tf.constant(rate), tf.constant(number, tf.int64))
        for table, by_row in gradients(batch, factors).items():
            for row, gradient in by_row.items():
                state = [part[row] for part in states[table]]
                if isinstance(optimizer, Adam):
                    adam(state, gradient, rate, number, 0.8, 0.95, 1e-4)
                else:
                    adagrad(state, gradient, rate, 1e-3)
        for table, state in states.items():
            for part, expected in zip(state_of(collection, table, optimizer.slots), state, strict=True):
                np.testing.assert_allclose(part, expected, rtol=2e-5, atol=1e-6)
    assert not any(np.any(variable[0]) for variable in collection.variables_by_bucket.values())


def test_dense_decay_is_the_textbook_on_the_whole_table() -> None:
    collection = build(Adam(0.8, 0.95, 1e-4), dense_decay=True)
    state = state_of(collection, "table", Adam.slots)
    keras_table = keras.Variable(read(collection, "table/weights"))
    keras_adam = keras.optimizers.Adam(0.1, 0.8, 0.95, 1e-4)
    for number, batch in enumerate(BATCHES, start=1):
        factors = factors_of(number)
        arguments = [tf.constant(f) for f in factors], tf.constant(0.1), tf.constant(number, tf.int64)
        step(collection, collection.plan(encode(batch)), *arguments)
        gradient = np.zeros((ROWS, DIM))
        for row, value in gradients(batch, factors)["table"].items():
            gradient[row] = value
        adam(state, gradient, 0.1, number, 0.8, 0.95, 1e-4)
        keras_adam.apply([tf.constant(gradient, tf.float32)], [keras_table])
        for part, expected in zip(state_of(collection, "table", Adam.slots), state, strict=True):
            np.testing.assert_allclose(part, expected, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(read(collection, "table/weights"), keras_table.numpy(), rtol=2e-5, atol=1e-6)
    assert not any(np.any(variable[0]) for variable in collection.variables_by_bucket.values())


def test_adagrad_is_that_of_the_dense_layers() -> None:
    collection = build(Adagrad(0.1, 1e-2))
    keras_table = keras.Variable(read(collection, "table/weights"))
    keras_adagrad = keras.optimizers.Adagrad(0.1, 0.1, 1e-2)
    for number, batch in enumerate(BATCHES, start=1):
        factors = factors_of(number)
        gradient = np.zeros((ROWS, DIM), np.float32)
        for row, value in gradients(batch, factors)["table"].items():
            gradient[row] = value
        step(collection, collection.plan(encode(batch)), factors, tf.constant(0.1), tf.constant(number, tf.int64))
        keras_adagrad.apply([tf.constant(gradient)], [keras_table])
    np.testing.assert_allclose(read(collection, "table/weights"), keras_table.numpy(), rtol=2e-5, atol=1e-6)


def test_no_gradient_no_change() -> None:
    collection = build(Adam())
    before = read(collection, "table/weights")
    plan = collection.plan(encode(BATCHES[0]))
    nothing = dict.fromkeys(collection.variables_by_bucket)
    collection.update(plan, collection.gather(plan), nothing, tf.constant(1.0), tf.constant(1, tf.int64))
    np.testing.assert_array_equal(read(collection, "table/weights"), before)


def test_inference_cannot_be_updated() -> None:
    collection = EmbeddingCollection([spec("table", 2, 2)], [])
    with pytest.raises(ValueError, match="without an optimizer"):
        collection.update(collection.plan({}), {}, {}, tf.constant(1.0), tf.constant(1))


def large_operations(optimizer: RowOptimizer, dense_decay: bool = False) -> set[str]:
    """Kinds of the operations of a step that read, make or write something of the size of a table."""
    rows = 98_765
    requests = [Concat(("x",), ("table",)), Pooled("bag", "table", "mean"), Concat(("x",), ("wide",))]
    tables = [spec("table", rows, DIM, "x", "bag"), spec("wide", rows, 1, "x")]
    collection = EmbeddingCollection(tables, requests, optimizer, dense_decay=dense_decay)

    def train(ids: tf.Tensor, bags: tf.RaggedTensor, factors: list[tf.Tensor]) -> None:
        plan = collection.plan({"x": Ids(ids), "bag": Ids(bags)})
        step(collection, plan, factors, tf.constant(0.1), tf.constant(1, tf.int64))

    function = tf.function(train, autograph=False).get_concrete_function(
        tf.TensorSpec([None], tf.int64),
        tf.RaggedTensorSpec([None, None], tf.int64),
        [tf.TensorSpec([None, width]) for width in (DIM, DIM, 1)],
    )
    operations = list(function.graph.get_operations())
    kinds = {operation.type for operation in operations}
    assert "ResourceGather" in kinds
    assert not kinds & {"StatefulPartitionedCall", "PartitionedCall", "While"}  # nothing is hidden in functions
    sized = {o.type for o in operations for t in o.outputs if t.shape.rank and (t.shape[0] or 0) >= rows}
    # A signed constant as large as a table, such as a number of segments, would be the size of something.
    constants = [tf.get_static_value(o.outputs[0]) for o in operations if o.type == "Const"]
    sized |= {"Const" for value in constants if value.size and value.dtype.kind == "i" and value.max() >= rows}
    whole = [operation for operation in operations if operation.type in ("ReadVariableOp", "AssignVariableOp")]
    # The graph's own variables hold tensors of it, whose sizes were seen above; tables come from outside.
    return sized | {operation.type for operation in whole if operation.inputs[0].op.type != "VarHandleOp"}


@pytest.mark.parametrize("optimizer", [Adam(), Adagrad()])
def test_step_time_does_not_grow_with_the_tables(optimizer: RowOptimizer) -> None:
    assert large_operations(optimizer) == set()


def test_dense_decay_touches_whole_tables() -> None:
    assert large_operations(Adam(), dense_decay=True) >= {"ReadVariableOp", "ScatterNd", "AssignVariableOp"}


def test_built_from_the_config() -> None:
    def build_from(text: str) -> tuple[RowOptimizer, bool]:
        return build_row_optimizer(text_format.Parse(text, optimizer_pb2.Optimizer()))

    optimizer, dense_decay = build_from("adam_optimizer { beta1: 0.5 beta2: 0.75 epsilon: 0.25 dense_decay: true }")
    assert (optimizer, dense_decay) == (Adam(0.5, 0.75, 0.25), True)
    optimizer, dense_decay = build_from("lazy_adam_optimizer { beta1: 0.5 }")
    assert isinstance(optimizer, Adam)
    assert optimizer.beta1 == 0.5
    np.testing.assert_allclose([optimizer.beta2, optimizer.epsilon], [0.999, 1e-8], rtol=1e-6)
    assert not dense_decay
    optimizer, dense_decay = build_from("adagrad_optimizer { initial_accumulator_value: 0.5 epsilon: 0.25 }")
    assert (optimizer, dense_decay) == (Adagrad(0.5, 0.25), False)
    assert optimizer.initial_slots == (0.5,)


@pytest.mark.parametrize(("text", "found"), [("", "no optimizer"), ("ftrl_optimizer {}", "ftrl_optimizer")])
def test_optimizers_without_a_sparse_form(text: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found) as error:
        build_row_optimizer(text_format.Parse(text, optimizer_pb2.Optimizer()))
    assert error.value.problems[0].path == "train_config.optimizer_config[0]"
