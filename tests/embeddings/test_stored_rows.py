"""Rows in fewer bytes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.embeddings import store_rows
from easyrec_lite.embeddings import stored as stored_module


def table(rows: int = 50, dim: int = 8) -> tf.Variable:
    values = np.random.default_rng(0).normal(0, 0.1, (rows, dim)).astype(np.float32)
    values[0] = 0.0  # the missing row
    return tf.Variable(values)


@pytest.mark.parametrize(("kind", "bytes_a_row"), [("bfloat16", 16), ("int8", 12)])
def test_rows_are_read_back_within_their_error(kind: str, bytes_a_row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_module, "_BLOCK_ROWS", 7)
    variable = table()
    exact = variable.numpy()
    rows = store_rows(variable, kind)
    read = rows.rows(tf.constant([[3, 0], [49, 3]])).numpy()
    assert read.shape == (2, 2, 8)
    assert sum(np.prod(v.shape) * v.dtype.size for v in rows.variables) == 50 * bytes_a_row
    limit = np.abs(exact) * 2**-8 if kind == "bfloat16" else np.abs(exact).max(1, keepdims=True) / 253
    assert (np.abs(variable.numpy() - exact) <= limit + 1e-12).all()
    # What is stored is what the table says from now on.
    np.testing.assert_array_equal(read, variable.numpy()[[[3, 0], [49, 3]]])
    np.testing.assert_array_equal(read[0, 1], np.zeros(8))


def test_the_largest_number_of_a_row_is_exact() -> None:
    variable = tf.Variable([[1.27, -0.01, 0.5, 0.0, 0.004]])
    store_rows(variable, "int8")
    np.testing.assert_allclose(variable.numpy(), [[1.27, -0.01, 0.5, 0.0, 0.0]], atol=1e-6)


def test_narrow_rows_have_no_scale() -> None:
    assert [v.dtype for v in store_rows(table(dim=1), "int8").variables] == [tf.bfloat16]


def test_other_kinds() -> None:
    with pytest.raises(ValueError, match=r"kind must be 'bfloat16' or 'int8'\. Received: 'int4'"):
        store_rows(table(), "int4")
