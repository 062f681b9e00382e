"""The inputs of an exported model: one per raw column, or one string with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from easyrec_lite.features import Column, Feature
from easyrec_lite.features.text import split_steps
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
        separator: what the items of a column of lists are joined by in the input; '' for single values.
        items: type of the items of lists; None for single values.
        item_default: what stands for an empty item.
        side: "user" where it is the same for all items of one request, else "item".
        ignore: a value that counts as empty, and an item that is left out; None for no such value.
    """

    name: str
    dtype: tf.DType
    default: int | float | str
    separator: str = ""
    items: tf.DType | None = None
    item_default: int | float | str = ""
    side: str = "item"
    ignore: int | float | str | None = None

    @property
    def of_user(self) -> bool:
        """Whether the column is the user's."""
        return self.side == "user"

    def spec(self, rows: int | None = None) -> tf.TensorSpec:
        """The input's signature, for any number of rows or a fixed one."""
        return tf.TensorSpec([rows], self.dtype, name=self.name)

    def to_json(self) -> dict[str, Any]:
        """For the export's description."""
        values = {"name": self.name, "dtype": self.dtype.name, "default": self.default, "side": self.side}
        if self.ignore is not None:
            values["ignore"] = self.ignore
        if self.items is None:
            return values
        return values | {"separator": self.separator, "items": self.items.name, "item_default": self.item_default}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ServedColumn:
        """The inverse of `to_json`."""
        name, dtype, default = values["name"], tf.as_dtype(values["dtype"]), values["default"]
        side, ignore = values.get("side", "item"), values.get("ignore")
        if "items" not in values:
            return cls(name, dtype, default, side=side, ignore=ignore)
        items = tf.as_dtype(values["items"])
        return cls(name, dtype, default, values["separator"], items, values["item_default"], side, ignore)


def served_columns(
    names: Sequence[str],
    features: Mapping[str, Feature],
    columns: Mapping[str, Mapping[str, Any]],
    user: frozenset[str] = frozenset(),
) -> list[ServedColumn]:
    """The inputs for the columns that the features read.

    Args:
        names: the columns, in the order of the inputs.
        features: those who read them.
        columns: by name, how training read them: `type` (a FieldType's name), `list`, `default`, `ignore`.
        user: names of the user's columns.
    """
    served = []
    for name in names:
        column, side = columns[name], "user" if name in user else "item"
        dtype, default = _read_as(column["type"], column["default"])
        ignore = column.get("ignore")
        if column["list"]:
            # An input has one value a row, so a list travels as text; `as_trained` makes the list of it again.
            separator = separator_of(name, features)
            served.append(ServedColumn(name, tf.string, "", separator, dtype, default, side, ignore))
        else:
            served.append(ServedColumn(name, dtype, default, side=side, ignore=ignore))
    return served


def _read_as(type_name: str, default: Any) -> tuple[tf.DType, int | float | str]:
    kind = _Field.FieldType.Value(type_name)
    if kind in _INTEGERS:
        return tf.int64, int(default)
    return (tf.float32, float(default)) if kind in _FLOATS else (tf.string, str(default))


def separator_of(name: str, features: Mapping[str, Feature]) -> str:
    """What the items of a column are joined by where it is text.

    Raises:
        ValueError: no feature reads the column.
    """
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
        result[column.name] = _typed(cells[:, place], column.dtype, column.default)
    return result


def as_trained(inputs: Mapping[str, tf.Tensor], columns: Sequence[ServedColumn]) -> dict[str, Column]:
    """The columns as training read them: those of lists ragged `[N, None]`, their items of the type they had there.

    The type matters: a cross, for one, hashes 7 and "7" differently. Values to ignore give way to the default, items to
    ignore are left out.
    """
    result: dict[str, Column] = dict(inputs)
    for column in columns:
        if column.items is not None:
            items = split_steps(inputs[column.name], column.separator)
            items = items.with_flat_values(_typed(items.flat_values, column.items, column.item_default))
            if column.ignore is not None:
                items = tf.ragged.boolean_mask(items, items.with_flat_values(items.flat_values != column.ignore))
            result[column.name] = items
        elif column.ignore is not None:
            values = inputs[column.name]
            default = tf.constant(column.default, column.dtype)
            result[column.name] = tf.where(values == tf.constant(column.ignore, column.dtype), default, values)
    return result


def _typed(cells: tf.Tensor, dtype: tf.DType, default: int | float | str) -> tf.Tensor:
    filled = tf.where(cells == "", tf.constant(str(default)), cells)
    return filled if dtype == tf.string else tf.strings.to_number(filled, dtype)
