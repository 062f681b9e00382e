"""Labels and sample weights of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import tensorflow as tf

from easyrec_lite.config import Problem
from easyrec_lite.features.base import Column, Columns
from easyrec_lite.features.text import parse_numbers, split_steps
from easyrec_lite.protos import data_pb2


@dataclass(frozen=True)
class _Label:
    name: str
    separator: str
    dim: int


class Labels:
    """What `data_config` says of labels: `label_fields`, `label_sep`, `label_dim` (one each a label), `sample_weight`.

    Attributes:
        names: of the labels.
        columns: that a batch must hold, the weight's included.
    """

    def __init__(self, config: data_pb2.DatasetConfig) -> None:
        separators = [*config.label_sep, *[","] * len(config.label_fields)]
        dims = [*config.label_dim, *[1] * len(config.label_fields)]
        labels = zip(config.label_fields, separators, dims, strict=False)
        self._labels = [_Label(name, separator, max(dim, 1)) for name, separator, dim in labels]
        self._weight = config.sample_weight
        self.names: tuple[str, ...] = tuple(config.label_fields)
        self.columns: tuple[str, ...] = (*self.names, self._weight) if self._weight else self.names

    def __call__(self, columns: Columns) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
        """Labels by name, float32 `[B]` (`[B, dim]` where label_dim > 1), and weights, float32 `[B]`, or None.

        A cell that is no finite number raises InvalidArgumentError when the batch is read: a label can't be guessed.
        Where the column's input_type is a number, the reader counts and skips such rows instead.
        """
        labels = {label.name: _read(columns[label.name], label) for label in self._labels}
        return labels, _read(columns[self._weight], _Label(self._weight, "", 1)) if self._weight else None


def _read(column: Column, label: _Label) -> tf.Tensor:
    if label.dim > 1 and not isinstance(column, tf.RaggedTensor) and column.dtype == tf.string:
        column = split_steps(column, label.separator)
    shape = [-1, label.dim] if label.dim > 1 else [-1]
    if isinstance(column, tf.RaggedTensor):
        complete = tf.reduce_all(tf.equal(column.row_lengths(), label.dim))
        message = f"Label column {label.name}: found a row with another number of values; expected {label.dim}."
        with tf.control_dependencies([tf.debugging.Assert(complete, [message])]):
            column = tf.identity(column.flat_values)
    numbers, valid = parse_numbers(column)
    message = (
        f"Label column {label.name}: found a value that is no finite number. Mend the rows, or give the column the "
        "input_type FLOAT or INT64, so that such rows are counted and skipped."
    )
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(valid), [message])]):
        return tf.reshape(numbers, shape)


def label_problems(config: data_pb2.DatasetConfig) -> Iterable[Problem]:
    """What is wrong with the fields that `Labels` reads."""
    labels = len(config.label_fields)
    for field in ("label_sep", "label_dim"):
        given = len(getattr(config, field))
        if given > labels:
            yield Problem(f"data_config.{field}", f"{given} values", f"at most {labels}, one a label")
    for label, dim in zip(config.label_fields, config.label_dim, strict=False):
        if dim == 0:
            yield Problem("data_config.label_dim", f"0 for label {label}", "1 or more")
    if config.extra_label_func:
        names = ", ".join(function.label_func for function in config.extra_label_func)
        yield Problem(
            "data_config.extra_label_func",
            names,
            "no function",
            "code in a config is not run; compute the label where the data is made and list it in label_fields",
        )
