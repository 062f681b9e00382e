"""The encoder of histories against its definition in NumPy, and what padding and chunks must not change."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from model_reference import encoded

from easyrec_lite.layers import SelfAttention, self_attention

RNG = np.random.default_rng(0)
LENGTHS = (3, 0, 1, 7, 0, 3, 2)
SPLITS = tf.constant(np.concatenate([[0], np.cumsum(LENGTHS)]), tf.int64)
ROWS = [slice(int(a), int(b)) for a, b in itertools.pairwise(SPLITS)]
WIDTH = 6
STEPS = tf.constant(RNG.standard_normal((sum(LENGTHS), WIDTH)), tf.float32)

ARGUMENTS = [
    {},
    {"heads": 3, "layers": 2, "hidden_units": 5, "positions": 4},
    {"heads": 1, "layers": 3, "positions": 0},
]


def built(**arguments) -> SelfAttention:
    """A layer whose variables are far from their start."""
    layer = SelfAttention(**arguments, name="past")
    layer(STEPS, SPLITS)
    for variable in layer.trainable_variables:
        variable.assign(RNG.normal(0, 0.5, variable.shape))
    return layer


def reference(layer: SelfAttention, steps: np.ndarray) -> np.ndarray:
    values = {v.path: np.asarray(v, np.float64) for v in layer.variables}
    return encoded(values, "past", steps.astype(np.float64), layer.heads)


@pytest.mark.parametrize("scores", [1, 60, 1 << 22])
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_it_is_its_definition(arguments: dict[str, int], scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_attention, "_SCORES_AT_A_TIME", scores)
    layer = built(**arguments)
    expected = [reference(layer, STEPS.numpy()[row]) for row in ROWS]
    np.testing.assert_allclose(layer(STEPS, SPLITS), expected, atol=1e-5)
    traced = tf.function(
        layer, input_signature=[tf.TensorSpec([None, WIDTH]), tf.TensorSpec([None], tf.int64)], autograph=False
    )
    np.testing.assert_allclose(traced(STEPS, SPLITS), expected, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 9])
def test_one_row_is_a_plain_series_of_products(length: int) -> None:
    layer = built(heads=3, layers=2)
    steps = tf.constant(RNG.standard_normal((length, WIDTH)), tf.float32)
    one = tf.function(
        layer, input_signature=[tf.TensorSpec([None, WIDTH]), tf.TensorSpec([2], tf.int64)], autograph=False
    ).get_concrete_function()
    splits = tf.constant([0, length], tf.int64)
    np.testing.assert_allclose(one(steps, splits), [reference(layer, steps.numpy())], atol=1e-5)
    kinds = [op.type for op in one.graph.get_operations()]
    assert sum(kind.startswith("BatchMatMul") for kind in kinds) == 4  # two a block
    assert not {"While", "StatelessWhile", "If", "StatelessIf"} & set(kinds)


@pytest.mark.parametrize("scores", [1, 60, 1 << 22])
def test_rows_do_not_see_each_other(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients of a batch are those of its rows by themselves, which need neither padding nor chunks."""
    monkeypatch.setattr(self_attention, "_SCORES_AT_A_TIME", scores)
    layer = built(heads=2, layers=2, positions=3)
    upstream = tf.constant(RNG.standard_normal((len(LENGTHS), WIDTH)), tf.float32)
    variables = [variable.value for variable in layer.trainable_variables]

    @tf.function(autograph=False)
    def whole(steps: tf.Tensor, splits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(steps)
            y = layer(steps, splits)
        of_steps, of_variables = tape.gradient(y, (steps, variables), upstream)
        return y, of_steps, of_variables

    y, of_steps, of_variables = whole(STEPS, SPLITS)
    alone = [np.zeros(variable.shape) for variable in variables]
    for place, row in enumerate(ROWS):
        steps = STEPS[row]
        with tf.GradientTape() as tape:
            tape.watch(steps)
            one = layer(steps, tf.constant([0, len(steps)], tf.int64))
        np.testing.assert_allclose(y[place], one[0], atol=1e-5)
        gradients = tape.gradient(one, [steps, *variables], upstream[place : place + 1])
        np.testing.assert_allclose(of_steps[row], gradients[0], atol=1e-4)
        for total, gradient in zip(alone, gradients[1:], strict=True):
            total += tf.convert_to_tensor(gradient).numpy()
    for variable, found, expected in zip(layer.trainable_variables, of_variables, alone, strict=True):
        assert isinstance(found, tf.Tensor)
        assert np.any(found != 0), variable.path
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=variable.path)


def test_one_long_row_pads_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    plain = self_attention._dot_product

    def watched(qkv: tf.Tensor, heads: int, true: tf.Tensor | None = None) -> tf.Tensor:
        sizes.append(tuple(qkv.shape[:2]))
        return plain(qkv, heads, true)

    monkeypatch.setattr(self_attention, "_dot_product", watched)
    monkeypatch.setattr(self_attention, "_SCORES_AT_A_TIME", 2 * 100)
    lengths = [2, 1, 50, 2, 0, 2, 5, 1]
    splits = tf.constant(np.concatenate([[0], np.cumsum(lengths)]), tf.int64)
    SelfAttention(heads=2)(tf.ones([sum(lengths), WIDTH]), splits)
    assert sizes == [(1, 50), (4, 5), (2, 1)]


def test_order_counts_by_positions_only() -> None:
    steps, splits = STEPS[:3], tf.constant([0, 3], tf.int64)
    without = built(positions=0)
    np.testing.assert_allclose(without(steps, splits), without(steps[::-1], splits), atol=1e-5)
    ordered = built(positions=3)
    assert np.abs(ordered(steps, splits) - ordered(steps[::-1], splits)).max() > 1e-2


def test_variables() -> None:
    layer = built(heads=2, hidden_units=5, positions=4)
    assert [(v.path, tuple(v.shape)) for v in layer.variables] == [
        ("past/positions", (4, 6)),
        ("past/block_0/attention_norm/gamma", (6,)),
        ("past/block_0/attention_norm/beta", (6,)),
        ("past/block_0/feed_forward_norm/gamma", (6,)),
        ("past/block_0/feed_forward_norm/beta", (6,)),
        ("past/block_0/qkv/kernel", (6, 18)),
        ("past/block_0/mix/kernel", (6, 6)),
        ("past/block_0/feed_forward/dense_0/kernel", (6, 5)),
        ("past/block_0/feed_forward/dense_0/bias", (5,)),
        ("past/block_0/feed_forward/dense_1/kernel", (5, 6)),
        ("past/block_0/feed_forward/dense_1/bias", (6,)),
        ("past/norm/gamma", (6,)),
        ("past/norm/beta", (6,)),
    ]
    assert len(layer.kernels) == 4
    assert tuple(SelfAttention().kernels) == ()


def test_a_batch_without_any_history_trains() -> None:
    layer = built(dropout_ratio=0.5)
    with tf.GradientTape() as tape:
        y = layer(tf.zeros([0, WIDTH]), tf.zeros([4], tf.int64), training=True)
    np.testing.assert_array_equal(y, np.zeros((3, WIDTH)))
    for gradient in tape.gradient(y, [v.value for v in layer.trainable_variables]):
        assert gradient is None or np.isfinite(gradient).all()


def test_dropout_is_for_training() -> None:
    layer = built(dropout_ratio=0.5)
    np.testing.assert_allclose(layer(STEPS, SPLITS), layer(STEPS, SPLITS))
    assert np.abs(layer(STEPS, SPLITS, training=True) - layer(STEPS, SPLITS)).max() > 1e-2
    states = [v.path for v in layer.variables if v.path.endswith("seed_state")]
    assert states == [
        "past/dropout/seed_state",
        "past/block_0/dropout/seed_state",
        "past/block_0/feed_forward/dropout_1/seed_state",
    ]


@pytest.mark.parametrize("arguments", [*ARGUMENTS, {"dropout_ratio": 0.1}])
def test_it_survives_its_config(arguments: dict[str, int]) -> None:
    layer = built(**arguments)
    again = SelfAttention.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    again(STEPS, SPLITS)
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(again(STEPS, SPLITS), layer(STEPS, SPLITS))


def test_arguments() -> None:
    with pytest.raises(ValueError, match=r"must divide the static width\. Received: heads=4"):
        SelfAttention(heads=4)(STEPS, SPLITS)
    for wrong in ({"heads": 0}, {"layers": 0}, {"hidden_units": 0}, {"positions": -1}):
        with pytest.raises(ValueError, match="must be positive"):
            SelfAttention(**wrong)
    with pytest.raises(ValueError, match="rate"):
        SelfAttention(dropout_ratio=1.0)
