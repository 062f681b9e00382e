from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import pytest
import tensorflow as tf
from embedding_reference import concat, dense, pool, ragged, read, spec

from easyrec_lite.embeddings import Adam, Concat, EmbeddingCollection, Plan, Pooled, Request, Sequence
from easyrec_lite.embeddings.buckets import Bucket
from easyrec_lite.features import Ids

A, B = [1, 4, -1, 4], [0, 0, 2, 6]  # ids of two single-valued features of a batch of 4
BAGS = [[3, 1, 3], [], [0], [-1, 2]]
WEIGHTS = [[0.5, 2.0, 1.0], [], [-3.0], [7.0, 0.25]]
ENCODED = {
    "a": dense(*A),
    "b": dense(*B),
    "c": dense(1, 1, 1, -1),
    "t": ragged(BAGS),
    "w": ragged(BAGS, WEIGHTS),
    "s": ragged([[[3, 1], [], [-1, 2]], [], [[0]], [[2, 2, 2]]]),
}
TABLES = [spec("a", 5, 4), spec("b", 7, 4), spec("c", 2, 8), spec("t", 4, 4)]


def outputs(collection: EmbeddingCollection, encoded: dict[str, Ids]) -> list[object]:
    plan = collection.plan(encoded)
    return collection.outputs(collection.weights(collection.gather(plan)), plan)


def test_concat_keeps_the_order_of_each_request() -> None:
    requests = [
        Concat(("b", "a"), ("b", "a")),
        Concat(("a",), ("a",)),
        Concat(("c",), ("c",)),
        Concat(("a", "b", "a"), ("a", "b", "a")),
    ]
    collection = EmbeddingCollection(TABLES, requests)
    table_a, table_b, table_c = (read(collection, f"{name}/weights") for name in "abc")
    first, second, third, fourth = outputs(collection, ENCODED)
    np.testing.assert_array_equal(first, concat([table_b, table_a], [B, A]))
    np.testing.assert_array_equal(second, concat([table_a], [A]))
    np.testing.assert_array_equal(third, concat([table_c], [[1, 1, 1, -1]]))
    np.testing.assert_array_equal(fourth, concat([table_a, table_b, table_a], [A, B, A]))


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("feature", ["t", "w"])
def test_pooling(combiner: str, feature: str) -> None:
    collection = EmbeddingCollection(TABLES, [Pooled(feature, "t", combiner)])
    expected = pool(read(collection, "t/weights"), BAGS, combiner, WEIGHTS if feature == "w" else None)
    (result,) = outputs(collection, ENCODED)
    assert result.shape == (4, 4)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_pooling_agrees_with_tensorflow() -> None:
    ids, weights = ENCODED["w"].ids.to_sparse(), ENCODED["w"].weights.to_sparse()
    for combiner in ("sum", "mean", "sqrtn"):
        collection = EmbeddingCollection(TABLES, [Pooled("w", "t", combiner)])
        expected = tf.nn.safe_embedding_lookup_sparse(read(collection, "t/weights"), ids, weights, combiner)
        np.testing.assert_allclose(outputs(collection, ENCODED)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
def test_sequences(combiner: str) -> None:
    collection = EmbeddingCollection(TABLES, [Sequence("t", "t"), Sequence("s", "t", combiner)])
    table = read(collection, "t/weights")
    single, several = outputs(collection, ENCODED)
    np.testing.assert_array_equal(single.row_splits, [0, 3, 3, 4, 6])
    np.testing.assert_array_equal(single.values, concat([table], [[3, 1, 3, 0, -1, 2]]))
    np.testing.assert_array_equal(several.row_splits, [0, 3, 3, 4, 5])
    steps = [[3, 1], [], [-1, 2], [0], [2, 2, 2]]
    np.testing.assert_allclose(several.values, pool(table, steps, combiner), rtol=1e-5, atol=1e-6)


ALL: Seq[Request] = [
    Concat(("a", "b"), ("a", "b")),
    Pooled("w", "t", "mean"),
    Sequence("t", "t"),
    Sequence("s", "t", "sum"),
]
SHAPES = [(8,), (4,), (4,), (4,)]


@pytest.mark.parametrize(
    "encoded",
    [
        {"a": dense(), "b": dense(), "t": ragged([]), "w": ragged([], []), "s": ragged([[[1]]])},
        {"a": dense(-1), "b": dense(-1), "t": ragged([[]]), "w": ragged([[]], [[]]), "s": ragged([[[]]])},
    ],
    ids=["no rows", "nothing in a row"],
)
def test_empty_batches(encoded: dict[str, Ids]) -> None:
    rows = encoded["a"].ids.shape[0]
    encoded = {**encoded, "s": Ids(encoded["s"].ids[:rows])}
    collection = EmbeddingCollection(TABLES, ALL, Adam())
    before = {view.name: view.read(0, view.shape[0]) for view in collection.views()}
    plan = collection.plan(encoded)
    packed = collection.gather(plan)
    weights = collection.weights(packed)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        result = collection.outputs(weights, plan)
        values = [output if isinstance(output, tf.Tensor) else output.values for output in result]
        loss = tf.add_n([tf.reduce_sum(value + 1.0) for value in values])
    assert [value.shape[1:] for value in values] == SHAPES
    assert [len(value) for value in values[:2]] == [rows, rows]
    assert not any(np.any(value) for value in values)
    collection.update(plan, packed, tape.gradient(loss, weights), tf.constant(1.0), tf.constant(1, tf.int64))
    for view in collection.views():
        np.testing.assert_array_equal(view.read(0, view.shape[0]), before[view.name])


def test_ids_outside_of_a_table_are_missing() -> None:
    # Row 5 of table a would be the first row of table b.
    collection = EmbeddingCollection([spec("a", 5, 4), spec("b", 7, 4)], [Concat(("a", "b"), ("a", "b"))])
    (result,) = outputs(collection, {"a": dense(5, 4, -7), "b": dense(2**31 - 1, 7, 6)})
    tables = [read(collection, "a/weights"), read(collection, "b/weights")]
    np.testing.assert_array_equal(result, concat(tables, [[-1, 4, -1], [-1, -1, 6]]))


def test_gradient_is_that_of_a_one_hot_product() -> None:
    collection = EmbeddingCollection(TABLES, [*ALL, Concat(("b",), ("b",)), Pooled("t", "t", "sqrtn")])
    variable = collection.variables_by_bucket["dim4"]
    random = np.random.default_rng(0)
    plan = collection.plan(ENCODED)
    weights = collection.weights(collection.gather(plan))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        values = [o if isinstance(o, tf.Tensor) else o.values for o in collection.outputs(weights, plan)]
        factors = [random.normal(size=value.shape).astype(np.float32) for value in values]
        # Not linear in the rows, so that a wrong forward value shows in the gradient too.
        loss = tf.add_n([tf.reduce_sum(tf.tanh(value) * factor) for value, factor in zip(values, factors, strict=True)])
    gradient = tf.math.unsorted_segment_sum(
        tape.gradient(loss, weights)["dim4"], plan.distinct["dim4"], variable.shape[0]
    )

    first = {view.name.split("/")[1]: view.first_row for view in collection.views()}

    def one_hot(table: str, rows: int, bags: Seq[Seq[tuple[int, float]]]) -> np.ndarray:
        matrix = np.zeros((len(bags), variable.shape[0]), np.float32)
        for place, bag in enumerate(bags):
            for i, weight in bag:
                if 0 <= i < rows:
                    matrix[place, first[table] + i] += weight
        return matrix

    def ones(*steps: Seq[int]) -> list[list[tuple[int, float]]]:
        return [[(i, 1.0) for i in step] for step in steps]

    one = [ones(*([i] for i in ids)) for ids in (A, B, [3, 1, 3, 0, -1, 2])]
    mean = [[(3, 0.5 / 3.5), (1, 2.0 / 3.5), (3, 1.0 / 3.5)], [], [], [(2, 1.0)]]
    roots = [[(3, 3**-0.5), (1, 3**-0.5), (3, 3**-0.5)], [], [(0, 1.0)], [(2, 1.0)]]
    table_a, table_b = one_hot("a", 5, one[0]), one_hot("b", 7, one[1])
    maps = [
        one_hot("t", 4, mean),
        one_hot("t", 4, one[2]),
        one_hot("t", 4, ones([3, 1], [], [-1, 2], [0], [2, 2, 2])),
        table_b,
        one_hot("t", 4, roots),
    ]
    table = tf.constant(variable.numpy())
    with tf.GradientTape() as tape:
        tape.watch(table)
        products = [tf.concat([table_a @ table, table_b @ table], axis=1), *(matrix @ table for matrix in maps)]
        reference = tf.add_n([tf.reduce_sum(tf.tanh(p) * factor) for p, factor in zip(products, factors, strict=True)])
    expected = tape.gradient(reference, table).numpy()
    np.testing.assert_allclose(loss, reference, rtol=1e-5)
    np.testing.assert_allclose(gradient[1:], expected[1:], atol=1e-6)


def test_two_features_share_a_table() -> None:
    collection = EmbeddingCollection([spec("ab", 7, 4, "a", "b")], [Concat(("a", "b"), ("ab", "ab"))])
    table = read(collection, "ab/weights")
    plan = collection.plan(ENCODED)
    assert sorted(plan.distinct["dim4"].numpy()) == [0, 1, 2, 3, 5, 7]  # id + 1, each once
    result = collection.outputs(collection.weights(collection.gather(plan)), plan)[0]
    np.testing.assert_array_equal(result, concat([table, table], [A, B]))


def count_ops(function: tf.types.experimental.ConcreteFunction, kind: str) -> int:
    return sum(op.type == kind for op in function.graph.get_operations())


def trace_plan(collection: EmbeddingCollection, encoded: dict[str, Ids]) -> tf.types.experimental.ConcreteFunction:
    return tf.function(collection.plan, autograph=False).get_concrete_function(encoded)


@pytest.mark.parametrize("wide", [("a", "b"), ("b", "a")], ids=["same order", "other order"])
def test_wide_and_deep_tables_share_one_pass_over_the_ids(wide: tuple[str, str]) -> None:
    sizes = {"a": 5, "b": 7, "w": 4}
    deep_tables = [spec(name, rows, 16) for name, rows in sizes.items()]
    wide_tables = [spec(f"{name}_wide", sizes[name], 1, name) for name in (*wide, "w")]
    requests = [
        Concat(("a", "b"), ("a", "b")),
        Pooled("w", "w", "mean"),
        Concat(wide, tuple(f"{name}_wide" for name in wide)),
        Pooled("w", "w_wide", "sum"),
    ]
    collection = EmbeddingCollection([*wide_tables, *deep_tables], requests)
    encoded = {name: ENCODED[name] for name in sizes}
    assert count_ops(trace_plan(collection, encoded), "Unique") == 1
    deep, pooled, linear, summed = outputs(collection, encoded)
    ids = {"a": A, "b": B}
    np.testing.assert_array_equal(deep, concat([read(collection, f"{n}/weights") for n in "ab"], [A, B]))
    np.testing.assert_allclose(pooled, pool(read(collection, "w/weights"), BAGS, "mean", WEIGHTS), rtol=1e-5, atol=1e-6)
    tables = [read(collection, f"{name}_wide/weights") for name in wide]
    np.testing.assert_array_equal(linear, concat(tables, [ids[name] for name in wide]))
    np.testing.assert_allclose(
        summed, pool(read(collection, "w_wide/weights"), BAGS, "sum", WEIGHTS), rtol=1e-5, atol=1e-6
    )


def test_tables_with_other_rows_do_not_share() -> None:
    requests = [Concat(("a", "b"), ("a", "b")), Concat(("b",), ("b_wide",))]
    collection = EmbeddingCollection([spec("a", 5, 4), spec("b", 7, 4), spec("b_wide", 7, 1, "b")], requests)
    assert count_ops(trace_plan(collection, {"a": ENCODED["a"], "b": ENCODED["b"]}), "Unique") == 2
    assert outputs(collection, ENCODED)[1].shape == (4, 1)
    np.testing.assert_array_equal(outputs(collection, ENCODED)[1], concat([read(collection, "b_wide/weights")], [B]))


def test_wide_rows_numbered_in_int64(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outputs(EmbeddingCollection(TABLES, ALL), ENCODED)
    monkeypatch.setattr(Bucket, "row_dtype", tf.int64)
    collection = EmbeddingCollection(TABLES, ALL, Adam())
    plan = collection.plan(ENCODED)
    assert plan.distinct["dim4"].dtype == tf.int64
    for result, wanted in zip(outputs(collection, ENCODED), expected, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, result, wanted)
    packed = collection.gather(plan)
    gradient = {key: tf.ones_like(value) for key, value in collection.weights(packed).items()}
    before = read(collection, "b/weights")
    collection.update(plan, packed, gradient, tf.constant(0.5), tf.constant(1, tf.int64))
    moved = before - read(collection, "b/weights")
    np.testing.assert_allclose(moved, 0.5 * np.isin(range(7), B)[:, None] + np.zeros(4), rtol=1e-4)


def test_small_tables_are_numbered_in_int32() -> None:
    assert Bucket(4, [spec("a", 2**31 - 2, 4)], []).row_dtype == tf.int32
    assert Bucket(4, [spec("a", 2**31 - 1, 4)], []).row_dtype == tf.int64


def test_plan_in_a_pipeline_is_the_plan_made_eagerly() -> None:
    collection = EmbeddingCollection(TABLES, ALL)
    encoded = {name: ENCODED[name] for name in "abtws"}
    rows = 4
    dataset = tf.data.Dataset.from_tensor_slices(encoded).batch(rows)
    (plan,) = dataset.map(lambda batch: collection.plan({name: Ids(*ids) for name, ids in batch.items()}))
    tf.nest.map_structure(np.testing.assert_array_equal, plan, collection.plan(encoded))


def test_without_deduplication_for_serving() -> None:
    collection = EmbeddingCollection(TABLES, ALL)
    plan = collection.plan(ENCODED, distinct=False)
    direct = collection.outputs(collection.variables_by_bucket, plan)
    tf.nest.map_structure(np.testing.assert_array_equal, direct, outputs(collection, ENCODED))
    function = tf.function(lambda: collection.outputs(collection.variables_by_bucket, plan), autograph=False)
    assert count_ops(function.get_concrete_function(), "ReadVariableOp") == 0  # would copy the table


def test_deduplication_is_needed_where_rows_hold_state() -> None:
    collection = EmbeddingCollection(TABLES, ALL, Adam())
    with pytest.raises(ValueError, match="build one for inference"):
        collection.plan(ENCODED, distinct=False)


def test_same_seed_same_values_whatever_else_there_is() -> None:
    alone = EmbeddingCollection([spec("b", 7, 4)], [Concat(("b",), ("b",))], seed=3)
    among = EmbeddingCollection(TABLES, ALL, Adam(), seed=3)
    other = EmbeddingCollection(TABLES, ALL, Adam(), seed=4)
    np.testing.assert_array_equal(read(alone, "b/weights"), read(among, "b/weights"))
    assert not np.any(read(alone, "b/weights") == read(other, "b/weights"))
    assert not np.any(read(among, "b/weights")[:5] == read(among, "a/weights"))


def test_unallocated_tables_show_the_graph() -> None:
    collection = EmbeddingCollection(TABLES, ALL, Adam(), allocate=False)
    assert [variable.shape for variable in collection.variables_by_bucket.values()] == [(1, 24), (1, 12)]
    encoded = {name: ENCODED[name] for name in "abtws"}
    traced = tf.function(lambda ids: outputs(collection, ids), autograph=False).get_concrete_function(encoded)
    assert traced.structured_outputs[0].shape == (4, 8)


def test_a_collection_without_tables() -> None:
    collection = EmbeddingCollection([], [], Adam())
    plan = collection.plan({})
    assert plan == Plan({}, {}, {}, {}, {})
    assert collection.outputs(collection.weights(collection.gather(plan)), plan) == []
    collection.update(plan, {}, {}, tf.constant(1.0), tf.constant(1))


def test_a_table_that_nobody_asks_for() -> None:
    collection = EmbeddingCollection(TABLES, [Concat(("a",), ("a",))])
    np.testing.assert_array_equal(collection.plan(ENCODED).distinct["dim8"], [0])
    np.testing.assert_array_equal(outputs(collection, ENCODED)[0], concat([read(collection, "a/weights")], [A]))


@pytest.mark.parametrize(
    ("tables", "requests", "message"),
    [
        ([spec("a", 5, 4), spec("a", 5, 4)], [], "different names"),
        (TABLES, [Concat(("a",), ("x",))], r"not there: \['x'\]"),
        (TABLES, [Pooled("a", "x")], r"not there: \['x'\]"),
        (TABLES, [Concat(("a", "c"), ("a", "c"))], "one width"),
        (TABLES, [Concat(("a", "b"), ("a",))], "one table a feature"),
        (TABLES, [Concat((), ())], "one table a feature"),
        (TABLES, [Pooled("t", "t", "max")], "sum, mean or sqrtn"),
    ],
)
def test_requests_that_cannot_be_met(tables: list, requests: list[Request], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingCollection(tables, requests)


def test_steps_of_several_values_are_no_bag() -> None:
    collection = EmbeddingCollection(TABLES, [Pooled("s", "t")])
    with pytest.raises(ValueError, match="'s' is a sequence"):
        collection.plan(ENCODED)
