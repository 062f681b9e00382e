from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.layers import SamplingFrequency


def test_the_share_of_each_item_over_all_batches_so_far():
    layer = SamplingFrequency()
    np.testing.assert_allclose(layer(tf.constant([7, 7, 7, 9])), np.log([0.75, 0.75, 0.75, 0.25]), rtol=1e-6)
    np.testing.assert_allclose(layer(tf.constant([9, 9, 5, 9])), np.log([0.5, 0.5, 0.125, 0.5]), rtol=1e-6)
    assert int(tf.reduce_sum(layer.counts.value)) == 8


def test_text_and_numbers_of_one_id_are_one_item():
    layer = SamplingFrequency()
    layer(tf.constant([3, 4], tf.int64))
    np.testing.assert_allclose(layer(tf.constant(["3", "3"])), np.log([0.75, 0.75]), rtol=1e-6)


def test_with_one_bucket_all_items_are_alike():
    np.testing.assert_array_equal(SamplingFrequency(buckets=1)(tf.constant([1, 2, 3])), np.zeros(3))
    with pytest.raises(ValueError, match="positive"):
        SamplingFrequency(buckets=0)
