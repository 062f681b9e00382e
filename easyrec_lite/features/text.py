"""Strings to tokens and numbers, in TF ops.

Nothing here raises on what a row holds: a token that is no number is reported as invalid, and the caller decides what
that means. Measured cost on one core, for a batch of 4,096 values: as_string 0.12 ms, check and conversion of
integers 0.12 ms, of floats 0.3 ms, hash 0.02 ms, split into 3.5 tokens a row 0.4 ms.
"""

from __future__ import annotations

import tensorflow as tf

# 18 digits always fit an int64.
_INTEGER = r"[-+]?[0-9]{1,18}"
_NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,2})?"


def as_text(values: tf.Tensor, precision: int = -1) -> tf.Tensor:
    """Values as the strings that are hashed.

    Args:
        values: string, integer or float.
        precision: digits after the point of a float.
    """
    if values.dtype == tf.string:
        return values
    return tf.strings.as_string(values, precision=precision if values.dtype.is_floating else -1)


def parse_integers(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Values as int64, and which of them are valid (None = all); an invalid one gives 0. Floats are cut off."""
    if values.dtype != tf.string:
        return tf.cast(values, tf.int64), None
    valid = tf.strings.regex_full_match(values, _INTEGER)
    return tf.strings.to_number(tf.where(valid, values, "0"), tf.int64), valid


def parse_numbers(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Values as finite float32, and which of them are valid; an invalid one (no number, or not finite) gives 0."""
    if values.dtype == tf.string:
        valid = tf.strings.regex_full_match(values, _NUMBER)
        values = tf.strings.to_number(tf.where(valid, values, "nan"), tf.float32)
    else:
        values = tf.cast(values, tf.float32)
    valid = tf.math.is_finite(values)
    return tf.where(valid, values, 0.0), valid


def split_tokens(text: tf.Tensor, separator: str) -> tf.RaggedTensor:
    """Tokens of each row, without empty ones: string `[B]` to ragged `[B, None]`.

    As EasyRec's tags: each byte of a longer separator separates.
    """
    split = tf.raw_ops.StringSplit(input=text, delimiter=separator, skip_empty=True)
    return _ragged(split.values, split.indices[:, 0], text)


def split_steps(text: tf.Tensor, separator: str) -> tf.RaggedTensor:
    """Steps of each row, empty ones in between included, so that parallel sequences stay aligned: `[B]` to `[B, None]`.

    The empty string is a row without steps. The whole of a longer separator separates.
    """
    if len(separator.encode()) == 1:  # this kernel gives no token for the empty string
        split = tf.raw_ops.StringSplit(input=text, delimiter=separator, skip_empty=False)
        return _ragged(split.values, split.indices[:, 0], text)
    split = tf.raw_ops.StringSplitV2(input=text, sep=separator)
    steps = _ragged(split.values, split.indices[:, 0], text)
    return drop(steps, tf.gather(tf.not_equal(text, ""), split.indices[:, 0]))


def _ragged(values: tf.Tensor, rows: tf.Tensor, like: tf.Tensor) -> tf.RaggedTensor:
    nrows = tf.size(like, out_type=tf.int64)
    return tf.RaggedTensor.from_value_rowids(values, rows, nrows=nrows, validate=False)


def first_steps(ragged: tf.RaggedTensor, most: int) -> tf.RaggedTensor:
    """The first `most` values of each row (axis 1 of any ragged rank)."""
    starts = ragged.row_starts()
    kept = tf.ragged.range(starts, starts + tf.minimum(ragged.row_lengths(), most))
    return tf.RaggedTensor.from_row_splits(tf.gather(ragged.values, kept.values), kept.row_splits, validate=False)


def tokens_of(column: tf.Tensor | tf.RaggedTensor, separator: str) -> tf.RaggedTensor:
    """A column of several values a row as ragged `[B, None]`.

    Args:
        column: ragged, taken as it is; string `[B]`, which is split; or numbers `[B]`, one token each.
        separator: between the tokens of a string.
    """
    if isinstance(column, tf.RaggedTensor):
        return column
    if column.dtype == tf.string:
        return split_tokens(column, separator)
    return one_each(column)


def one_each(column: tf.Tensor) -> tf.RaggedTensor:
    """Ragged `[B, None]` with one value in each row."""
    splits = tf.range(tf.size(column, out_type=tf.int64) + 1)
    return tf.RaggedTensor.from_row_splits(column, splits, validate=False)


def drop(ragged: tf.RaggedTensor, kept: tf.Tensor) -> tf.RaggedTensor:
    """Ragged `[B, None]` without the values whose `kept` `[N]` is False."""
    rows = tf.boolean_mask(ragged.value_rowids(), kept)
    nrows = ragged.nrows(tf.int64)
    return tf.RaggedTensor.from_value_rowids(tf.boolean_mask(ragged.values, kept), rows, nrows=nrows, validate=False)
