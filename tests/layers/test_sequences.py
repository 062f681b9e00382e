from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.layers import SequenceAttention, TargetAttention, TextCNN, segments

RNG = np.random.default_rng(0)
LENGTHS = (3, 0, 1, 7, 0)
SPLITS = tf.constant(np.concatenate([[0], np.cumsum(LENGTHS)]), tf.int64)
ROWS = [slice(int(a), int(b)) for a, b in itertools.pairwise(SPLITS)]


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Layers begin with the same weights in every run."""
    keras.utils.set_random_seed(1)


def normal(*shape: int) -> tf.Tensor:
    return tf.constant(RNG.standard_normal(shape), tf.float32)


KEYS, QUERY = normal(sum(LENGTHS), 4), normal(len(LENGTHS), 4)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def reference(layer: TargetAttention, keys: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Row by row, from the definition: the whole concatenation through the plain MLP."""
    out = np.zeros_like(query)
    for row, positions in enumerate(ROWS):
        k = keys[positions]
        if len(k):
            q = np.broadcast_to(query[row], k.shape)
            score = layer.mlp(tf.constant(np.concatenate([q, k, q - k, q * k], axis=1))).numpy()[:, 0]
            weight = softmax(score) if layer.normalizer == "softmax" else 1 / (1 + np.exp(-score / 2.0))
            out[row] = weight @ k
    return out


@pytest.mark.parametrize("normalizer", ["softmax", "sigmoid"])
@pytest.mark.parametrize("use_bn", [False, True])
def test_target_attention_is_its_definition(normalizer: str, use_bn: bool) -> None:
    layer = TargetAttention((8, 3, 1), activation="dice", use_bn=use_bn, normalizer=normalizer)
    layer(KEYS, SPLITS, QUERY, training=True)
    y = layer(KEYS, SPLITS, QUERY)
    np.testing.assert_allclose(y, reference(layer, KEYS.numpy(), QUERY.numpy()), atol=1e-6)
    np.testing.assert_array_equal(y.numpy()[[1, 4]], 0.0)


def test_target_attention_without_biases() -> None:
    layer = TargetAttention((8, 3, 1), use_bn=True, use_bias=False, use_bn_after_activation=True, name="din")
    layer(KEYS, SPLITS, QUERY, training=True)
    assert not [v.path for v in layer.variables if v.path.endswith("bias")]
    np.testing.assert_allclose(layer(KEYS, SPLITS, QUERY), reference(layer, KEYS.numpy(), QUERY.numpy()), atol=1e-6)
    history = KEYS[: LENGTHS[0]]
    pooled = layer.attend(layer.prepare(history), QUERY[:1])
    np.testing.assert_allclose(pooled, layer(KEYS, SPLITS, QUERY)[:1], atol=1e-6)


def test_target_attention_gradients_are_those_of_the_unsplit_form() -> None:
    layer = TargetAttention((8, 1))
    layer.build(KEYS.shape, SPLITS.shape, QUERY.shape)
    ids, rows = segments.row_ids(SPLITS), segments.num_rows(SPLITS)
    upstream = normal(*QUERY.shape)

    def unsplit(keys: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
        q = tf.gather(query, ids)
        score = layer.mlp(tf.concat([q, keys, q - keys, q * keys], axis=1))[:, 0]
        exp = tf.exp(score)
        weight = exp / tf.gather(tf.math.unsorted_segment_sum(exp, ids, rows), ids)
        return tf.math.unsorted_segment_sum(weight[:, None] * keys, ids, rows)

    gradients = []
    for function in (lambda k, q: layer(k, SPLITS, q), unsplit):
        with tf.GradientTape() as tape:
            tape.watch([KEYS, QUERY])
            y = function(KEYS, QUERY)
        gradients.append(tape.gradient(y, [KEYS, QUERY, *(v.value for v in layer.trainable_variables)], upstream))
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(ours), tf.convert_to_tensor(theirs), atol=2e-6)


@pytest.mark.parametrize("normalizer", ["softmax", "sigmoid"])
@pytest.mark.parametrize("length", [0, 1, 6])
def test_one_user_prepared_once_equals_the_plain_call(normalizer: str, length: int) -> None:
    layer = TargetAttention((8, 3, 1), use_bn=True, normalizer=normalizer)
    layer(KEYS, SPLITS, QUERY, training=True)
    history, queries = normal(length, 4), normal(9, 4)
    splits = tf.range(10, dtype=tf.int64) * length
    plain = layer(tf.tile(history, [9, 1]), splits, queries)
    np.testing.assert_allclose(layer.attend(layer.prepare(history), queries), plain, atol=1e-6)


def test_target_attention_layout_and_paths() -> None:
    layer = TargetAttention((8, 1), name="din")
    layer(KEYS, SPLITS, QUERY)
    assert [(v.path, v.shape) for v in layer.variables] == [
        ("din/attention/dense_0/kernel", (16, 8)),
        ("din/attention/dense_0/bias", (8,)),
        ("din/attention/dense_1/kernel", (8, 1)),
        ("din/attention/dense_1/bias", (1,)),
    ]
    assert len(layer.kernels) == 2


def test_a_batch_without_any_history_trains() -> None:
    layer = TargetAttention((8, 1), use_bn=True)
    splits = tf.zeros([4], tf.int64)
    with tf.GradientTape() as tape:
        y = layer(tf.zeros([0, 4]), splits, normal(3, 4), training=True)
    np.testing.assert_array_equal(y, np.zeros((3, 4)))
    for gradient in tape.gradient(y, [v.value for v in layer.trainable_variables]):
        assert gradient is None or np.isfinite(gradient).all()


def test_target_attention_arguments() -> None:
    with pytest.raises(ValueError, match="end with 1"):
        TargetAttention((8, 2))
    with pytest.raises(ValueError, match="normalizer"):
        TargetAttention((8, 1), normalizer="max")
    with pytest.raises(ValueError, match="one static width"):
        TargetAttention((8, 1))(KEYS, SPLITS, normal(5, 3))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_segment_ops_for_any_lengths(lengths: list[int]) -> None:
    splits = tf.constant(np.concatenate([[0], np.cumsum(lengths)]), tf.int64)
    ids, rows = segments.row_ids(splits), segments.num_rows(splits)
    np.testing.assert_array_equal(ids, np.repeat(np.arange(len(lengths)), lengths))
    values = RNG.standard_normal((sum(lengths), 2)).astype(np.float32) * 100
    bounds = splits.numpy()
    chunks = [values[a:b] for a, b in itertools.pairwise(bounds)]
    np.testing.assert_allclose(
        segments.segment_sum(tf.constant(values), ids, rows), [chunk.sum(0) for chunk in chunks], rtol=1e-5, atol=1e-4
    )
    weights = segments.segment_softmax(tf.constant(values[:, 0]), ids, rows)
    expected = [softmax(chunk[:, 0]) for chunk in chunks if len(chunk)]
    np.testing.assert_allclose(weights, np.concatenate([*expected, []]), atol=1e-6)

    x = tf.constant(RNG.standard_normal((len(lengths), 2)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = segments.repeat_rows(x, ids, rows)
    np.testing.assert_array_equal(y, np.repeat(x.numpy(), lengths, axis=0))
    np.testing.assert_array_equal(tape.gradient(y, x), np.repeat(np.array(lengths)[:, None], 2, axis=1))


def test_sequence_attention_pools_by_learned_scores() -> None:
    layer = SequenceAttention()
    y = layer(KEYS, SPLITS).numpy()
    kernel = np.asarray(layer.kernel)
    for row, positions in enumerate(ROWS):
        k = KEYS.numpy()[positions]
        expected = softmax((k @ kernel)[:, 0]) @ k if len(k) else np.zeros(4)
        np.testing.assert_allclose(y[row], expected, atol=1e-6)
        alone = layer(KEYS[positions], tf.constant([0, len(k)], tf.int64))
        np.testing.assert_allclose(alone, expected[None], atol=1e-6)


def test_text_cnn_is_a_sliding_dot_product() -> None:
    layer = TextCNN([2, 3], [3, 2], pad_sequence_length=5, name="cnn")
    y = layer(KEYS, SPLITS).numpy()
    assert [v.path for v in layer.variables][:2] == ["cnn/conv_0/kernel", "cnn/conv_0/bias"]
    for row, positions in enumerate(ROWS):
        padded = np.zeros((5, 4), np.float32)
        k = KEYS.numpy()[positions][:5]
        padded[: len(k)] = k
        expected: list[float] = []
        for convolution, size in zip(layer.convolutions, (2, 3), strict=True):
            kernel = np.asarray(convolution.kernel)
            windows = np.stack([padded[i : i + size] for i in range(5 - size + 1)])
            expected.extend(np.maximum(np.einsum("tld,ldf->tf", windows, kernel), 0).max(0))
        np.testing.assert_allclose(y[row], expected, atol=1e-5)


def test_text_cnn_trains_and_checks_its_arguments() -> None:
    layer = TextCNN([2], [3], 5, activation="prelu")
    with tf.GradientTape() as tape:
        tape.watch(KEYS)
        y = layer(KEYS, SPLITS)
    assert np.isfinite(tf.convert_to_tensor(tape.gradient(y, KEYS))).all()
    with pytest.raises(ValueError, match="one length"):
        TextCNN([2, 3], [4], 5)
    with pytest.raises(ValueError, match="wider"):
        TextCNN([6], [4], 5)


@pytest.mark.parametrize(
    "layer",
    [
        TargetAttention((8, 1), dropout_ratio=(0.1,)),
        TargetAttention((8, 1), use_bias=False, use_final_bias=True, initializer="zeros", use_bn_after_activation=True),
        SequenceAttention(),
        TextCNN([2], [3], 5),
    ],
)
def test_sequence_layers_survive_their_config(layer) -> None:
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
