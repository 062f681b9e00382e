"""The side of a request that columns and features describe."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from easyrec_lite.embeddings import SequenceOutput
from easyrec_lite.features import Column, Feature
from easyrec_lite.layers import Side
from easyrec_lite.protos import data_pb2, pipeline_pb2


def user_columns(config: pipeline_pb2.EasyRecConfig) -> frozenset[str]:
    """The raw columns declared `side: USER`: those that are the same for all items of one request."""
    user = data_pb2.DatasetConfig.USER
    return frozenset(field.input_name for field in config.data_config.input_fields if field.side == user)


def feature_side(feature: Feature, user: frozenset[str]) -> Side:
    """USER where all its columns are the user's, ITEM where none is (or its side is not said), else BOTH."""
    found = {name in user for name in feature.inputs}
    return Side.BOTH if len(found) > 1 else Side.USER if found == {True} else Side.ITEM


def repeated(columns: Mapping[str, Column], names: frozenset[str], rows: tf.Tensor) -> dict[str, Column]:
    """The columns with those of `names` brought from one row to `rows`; those that have as many stay as they are."""
    result = dict(columns)
    for name in names.intersection(columns):
        column = columns[name]
        size = column.nrows(tf.int32) if isinstance(column, tf.RaggedTensor) else tf.shape(column)[0]
        # One row is taken again and again; of several, each once.
        places = tf.range(rows) % tf.maximum(size, 1)
        result[name] = tf.gather(column, places)
    return result


def request_rows(columns: Mapping[str, Column], user: frozenset[str]) -> tf.Tensor:
    """N, scalar int32: the rows of the columns that are not the user's; of the user's where there are no others."""
    chosen = next((column for name, column in columns.items() if name not in user), None)
    column = next(iter(columns.values())) if chosen is None else chosen
    return column.nrows(tf.int32) if isinstance(column, tf.RaggedTensor) else tf.shape(column)[0]


def repeat_row(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """`[1 or N, ...]` -> `[N, ...]`."""
    return x if x.shape[0] is None else tf.broadcast_to(x, tf.concat([[rows], tf.shape(x)[1:]], axis=0))


def repeat_steps(steps: SequenceOutput, rows: tf.Tensor) -> SequenceOutput:
    """The sequence of one row, `rows` times."""
    count = tf.shape(steps.values)[0]
    values = tf.gather(steps.values, tf.range(rows * count) % tf.maximum(count, 1))
    return SequenceOutput(values, tf.range(tf.cast(rows, tf.int64) + 1) * tf.cast(count, tf.int64))
