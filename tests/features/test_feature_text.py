"""Splitting and parsing against Python's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.features.number_mapping import NumberMapping
from easyrec_lite.features.text import first_steps, parse_integers, parse_numbers, split_steps, split_tokens
from easyrec_lite.protos import feature_pb2

QUICK = settings(max_examples=60, deadline=None)
WORD = st.text(st.characters(exclude_characters="|:\x00", exclude_categories=["Cs"]), max_size=5)


def lists(ragged: tf.RaggedTensor) -> list[list[str]]:
    return [[token.decode() for token in row] for row in ragged.to_list()]


@QUICK
@given(st.lists(st.lists(WORD, max_size=5), max_size=5), st.sampled_from(["|", "||", "|:"]))
def test_split_steps_undoes_join(rows, separator):
    rows = [row for row in rows if row != [""]]  # joins to the same string as []
    text = tf.constant([separator.join(row) for row in rows], tf.string)
    assert lists(split_steps(text, separator)) == rows


@QUICK
@given(st.lists(st.lists(WORD, max_size=5), max_size=5))
def test_split_tokens_undoes_join_but_for_empty_tokens(rows):
    text = tf.constant(["|".join(row) for row in rows], tf.string)
    assert lists(split_tokens(text, "|")) == [[token for token in row if token] for row in rows]


@QUICK
@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=5), st.integers(0, 6))
def test_first_steps(rows, most):
    ragged = tf.ragged.constant(rows, tf.int64, ragged_rank=1)
    assert first_steps(ragged, most).to_list() == [row[:most] for row in rows]


@QUICK
@given(st.lists(st.integers(-(10**17), 10**17)))
def test_integers_are_read(numbers):
    found, valid = parse_integers(tf.constant([str(number) for number in numbers], tf.string))
    assert found.numpy().tolist() == numbers
    assert valid.numpy().all()


@QUICK
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)))
def test_floats_are_read(numbers):
    found, valid = parse_numbers(tf.constant([repr(number) for number in numbers], tf.string))
    np.testing.assert_array_equal(found, np.array(numbers, np.float32))
    assert valid.numpy().all()


@QUICK
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=5))
def test_nothing_raises(texts):
    column = tf.constant(texts, tf.string)
    numbers, valid = parse_numbers(column)
    assert np.isfinite(numbers).all()
    assert (numbers.numpy()[~valid.numpy()] == 0).all()
    integers, _ = parse_integers(column)
    assert integers.dtype == tf.int64


@pytest.mark.parametrize("text", ["", " 1", "1 ", "1e", "0x10", "1_000", "--1", ".", "inf", "1e40", "1,5", "\uff11"])
def test_no_numbers(text):
    assert not parse_numbers(tf.constant([text]))[1].numpy()[0]


@QUICK
@given(
    st.lists(st.floats(-100, 100, width=32, allow_subnormal=False), min_size=1, max_size=8, unique=True),
    st.lists(st.floats(width=32, allow_nan=False, allow_subnormal=False)),
)
def test_buckets_are_numpys(boundaries, numbers):
    boundaries = sorted(boundaries)
    mapping = NumberMapping(feature_pb2.FeatureConfig(boundaries=boundaries))
    found = mapping.bucketize(tf.constant(numbers, tf.float32))
    np.testing.assert_array_equal(found, np.digitize(np.array(numbers, np.float32), np.array(boundaries, np.float32)))
    assert mapping.num_ids == len(boundaries) + 1


def test_formula_of_a_scaled_number():
    config = feature_pb2.FeatureConfig(min_val=0, max_val=10, normalizer_fn="lambda v: log1p(v)")
    found = NumberMapping(config).normalize(tf.constant([[10.0], [5.0]]))
    np.testing.assert_allclose(found, [[math.log(2)], [math.log(1.5)]], rtol=1e-6)
