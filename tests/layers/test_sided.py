from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.layers import FM, MLP, BatchNorm, Dense, MMoE, Side, Sided, apply, as_tensor, concat

RNG = np.random.default_rng(0)


def normal(*shape: int) -> tf.Tensor:
    return tf.constant(RNG.standard_normal(shape), tf.float32)


def mixed(rows: int = 5) -> Sided:
    """User, item, user and crossed columns, 4 + 8 + 4 + 4 wide."""
    return Sided(
        (
            (Side.USER, normal(1, 4)),
            (Side.ITEM, normal(rows, 8)),
            (Side.USER, normal(1, 4)),
            (Side.BOTH, normal(rows, 4)),
        )
    )


def test_tensor_tiles_the_user_and_keeps_column_order() -> None:
    sided = Sided(((Side.USER, tf.constant([[1.0, 2.0]])), (Side.ITEM, tf.constant([[3.0], [4.0]]))))
    np.testing.assert_array_equal(sided.tensor(), [[1, 2, 3], [1, 2, 4]])
    assert sided.width == 3
    assert sided.side is Side.BOTH


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_tensor_has_the_items_rows(rows: int) -> None:
    assert mixed(rows).tensor().shape == (rows, 20)


def test_parts_are_checked() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Sided(())
    with pytest.raises(ValueError, match="width"):
        Sided(((Side.USER, tf.constant(1.0)),))


def test_concat_is_plain_for_plain_and_joins_neighbours_of_one_side() -> None:
    plain = concat([tf.ones([2, 1]), tf.zeros([2, 1])])
    np.testing.assert_array_equal(plain, [[1, 0], [1, 0]])
    item = Sided(((Side.ITEM, tf.ones([2, 3])),))
    user = Sided(((Side.USER, tf.zeros([1, 2])),))
    joined = concat([user, item, item, tf.ones([2, 1])])
    assert [(side, part.shape[1]) for side, part in joined.parts] == [(Side.USER, 2), (Side.ITEM, 6), (Side.BOTH, 1)]
    np.testing.assert_array_equal(joined.tensor(), tf.concat([tf.zeros([2, 2]), tf.ones([2, 7])], axis=1))


LAYERS = {
    "dense": lambda: Dense(3),
    "mlp": lambda: MLP([6, 3], [0.5], activation="dice"),
    "mlp, no hidden units": lambda: MLP([]),
    "batch norm": BatchNorm,
    "fm": lambda: FM(dim=4),
    "mmoe": lambda: MMoE(2, [[6, 3], [3]]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_sided_equals_plain(name: str) -> None:
    layer, x = LAYERS[name](), mixed()
    # Training calls first, so that batch norm has averages that are not trivial.
    for _ in range(3):
        layer(normal(16, 20) * 2.0 + 1.0, **({} if name in {"dense"} else {"training": True}))
    plain, sided = layer(x.tensor()), apply(layer, x)
    for one, other in zip(tf.nest.flatten(plain), sided if isinstance(sided, list) else [sided], strict=True):
        np.testing.assert_allclose(as_tensor(other), one, atol=1e-6)


@pytest.mark.parametrize("side", list(Side))
def test_one_side_is_kept(side: Side) -> None:
    mlp = MLP([3])
    x = normal(2, 4)
    expected = mlp(x)
    result = apply(mlp, Sided(((side, x),)))
    if side is Side.BOTH:
        np.testing.assert_allclose(as_tensor(result), expected, atol=1e-6)
    else:
        assert result.side is side
        np.testing.assert_array_equal(result.tensor(), expected)


def test_column_wise_layers_keep_all_sides() -> None:
    norm = BatchNorm()
    norm(normal(4, 20))
    assert [side for side, _ in apply(norm, mixed()).parts] == [Side.USER, Side.ITEM, Side.USER, Side.BOTH]


def test_a_layer_that_knows_no_sides_gets_the_tiled_tensor() -> None:
    x = mixed()
    np.testing.assert_array_equal(apply(lambda tensor: tensor * 2.0, x), x.tensor() * 2.0)


def test_an_unbuilt_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="not built"):
        apply(MLP([2], name="deep"), mixed())


def test_the_users_product_has_one_row() -> None:
    """The point of it all: no matmul of the user's columns with as many rows as there are items."""
    dense = Dense(3, use_bias=False)
    dense(normal(2, 6))

    @tf.function(input_signature=[tf.TensorSpec([1, 4]), tf.TensorSpec([None, 2])])
    def serve(user: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        return apply(dense, Sided(((Side.USER, user), (Side.ITEM, item))))

    matmuls = [op for op in serve.get_concrete_function().graph.get_operations() if op.type == "MatMul"]
    assert sorted(op.inputs[0].shape.as_list()[0] or 0 for op in matmuls) == [0, 1]


def test_user_parts_of_one_row_are_joined_and_others_left_apart() -> None:
    one = Sided(((Side.USER, tf.ones([1, 2])),))
    joined = concat([one, Sided(((Side.USER, tf.zeros([1, 3])),))])
    assert [(side, tuple(part.shape)) for side, part in joined.parts] == [(Side.USER, (1, 5))]
    apart = concat([one, Sided(((Side.USER, tf.zeros([4, 3])),)), Sided(((Side.ITEM, tf.zeros([4, 1])),))])
    assert [tuple(part.shape) for _, part in apart.parts] == [(1, 2), (4, 3), (4, 1)]


def test_the_user_comes_first_in_sums() -> None:
    assert [side for side, _ in mixed().user_first] == [Side.USER, Side.USER, Side.ITEM, Side.BOTH]


def test_the_items_products_are_one() -> None:
    """Each further product of the items' rows would be a pass over all of them."""
    dense = Dense(3)
    dense(normal(2, 20))

    @tf.function(input_signature=[tf.TensorSpec([1, 4]), tf.TensorSpec([None, 8])])
    def serve(user: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        return apply(dense, Sided(((Side.ITEM, item), (Side.USER, user), (Side.ITEM, item))))

    graph = serve.get_concrete_function().graph
    rows = [op.inputs[0].shape.as_list()[0] for op in graph.get_operations() if op.type == "MatMul"]
    assert sorted(rows, key=str) == [1, None]
