"""The inputs of an exported model: one per raw column, or one string with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from easyrec_lite.features import Feature
from easyrec_lite.protos import data_pb2

_Field = data_pb2.DatasetConfig
_INTEGERS = (_Field.INT32, _Field.INT64, _Field.BOOL)
_FLOATS = (_Field.FLOAT, _Field.DOUBLE)
SINGLE_INPUT = "features"  # EasyRec's name of the one string input


@dataclass(frozen=True)
class ServedColumn:
    """A raw column as an input of the exported model, `[N]`.

    Attributes:
        name: name of the column and of the input.
        dtype: int64, float32 or string.
        default: what stands for an empty cell where columns come as text.
        separator: what a column that was read as lists is joined by; '' for single values.
    """

    name: str
    dtype: tf.DType
    default: int | float | str
    separator: str = ""

    @property
    def spec(self) -> tf.TensorSpec:
        """The input's signature."""
        return tf.TensorSpec([None], self.dtype, name=self.name)

    def to_json(self) -> dict[str, Any]:
        """For the export's description."""
        return {"name": self.name, "dtype": self.dtype.name, "default": self.default, "separator": self.separator}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ServedColumn:
        """The inverse of `to_json`."""
        return cls(values["name"], tf.as_dtype(values["dtype"]), values["default"], values["separator"])


def served_columns(
    names: Sequence[str], features: Mapping[str, Feature], columns: Mapping[str, Mapping[str, Any]]
) -> list[ServedColumn]:
    """The inputs for the columns that the features read.

    Args:
        names: the columns, in the order of the inputs.
        features: those who read them.
        columns: by name, how training read them: `type` (a FieldType's name), `list`, `default`.
    """
    served = []
    for name in names:
        column = columns[name]
        kind = _Field.FieldType.Value(column["type"])
        if column["list"]:
            # A list travels as text: a feature reads "3|7" and [3, 7] alike.
            served.append(ServedColumn(name, tf.string, "", _separator(name, features)))
        elif kind in _INTEGERS:
            served.append(ServedColumn(name, tf.int64, int(column["default"])))
        elif kind in _FLOATS:
            served.append(ServedColumn(name, tf.float32, float(column["default"])))
        else:
            served.append(ServedColumn(name, tf.string, str(column["default"])))
    return served


def _separator(name: str, features: Mapping[str, Feature]) -> str:
    for feature in features.values():
        if name in feature.inputs:
            config = feature.config
            place = feature.inputs.index(name)
            return config.combo_input_seps[place] if config.combo_input_seps else config.separator
    raise ValueError(f"No feature reads the column {name!r}.")


def split_single_input(rows: tf.Tensor, columns: Sequence[ServedColumn], separator: str) -> dict[str, tf.Tensor]:
    """Columns `[N]` by name from rows `[N]` of text, cells joined by `separator` in the order of `columns`.

    Empty cells, and those that a row leaves out at its end, take the column's default.
    """
    cells = tf.strings.split(rows, separator).to_tensor("", shape=[None, len(columns)])
    result = {}
    for place, column in enumerate(columns):
        cell = cells[:, place]
        filled = tf.where(cell == "", tf.constant(str(column.default)), cell)
        result[column.name] = filled if column.dtype == tf.string else tf.strings.to_number(filled, column.dtype)
    return result
