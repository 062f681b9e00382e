"""Rows as requests to an export: inputs by name, whole or of one user with some items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from easyrec_lite.features import Column, Columns
from easyrec_lite.serving.columns import SINGLE_INPUT, ServedColumn

Inputs = dict[str, np.ndarray]


def as_inputs(rows: Columns, columns: Sequence[ServedColumn]) -> Inputs:
    """Rows as training reads them, as the export's inputs `[N]`: lists joined to text."""
    result = {}
    for column in columns:
        values = rows[column.name]
        if isinstance(values, tf.RaggedTensor):
            text = values if values.dtype == tf.string else tf.strings.as_string(values)
            values = tf.strings.reduce_join(text, axis=1, separator=column.separator)
        result[column.name] = values.numpy()
    return result


def as_text(inputs: Inputs, columns: Sequence[ServedColumn], separator: str) -> Inputs:
    """The same as the one input of the single-string form."""
    cells = [[_cell(value) for value in inputs[column.name]] for column in columns]
    return {SINGLE_INPUT: np.array([separator.join(row).encode() for row in zip(*cells, strict=True)], object)}


def taken(rows: Columns, places: np.ndarray) -> dict[str, Column]:
    """The rows at `places`."""
    return {name: tf.gather(column, places) for name, column in rows.items()}


def count(rows: Columns) -> int:
    """Number of rows."""
    column = next(iter(rows.values()))
    return int(column.nrows() if isinstance(column, tf.RaggedTensor) else column.shape[0])


@dataclass(frozen=True)
class UserRequest:
    """One user and items for him, as places in the rows.

    Attributes:
        user: the row whose user columns are taken.
        items: the rows whose other columns are taken.
    """

    user: int
    items: np.ndarray

    def inputs(self, inputs: Mapping[str, np.ndarray], columns: Sequence[ServedColumn]) -> Inputs:
        """The request: the user's columns with one row, the others with one an item."""
        return {c.name: inputs[c.name][[self.user] if c.of_user else self.items] for c in columns}

    def unsplit(self, rows: Columns, columns: Sequence[ServedColumn]) -> dict[str, Column]:
        """The same rows with the user repeated for each item."""
        user = np.full(len(self.items), self.user)
        return {c.name: tf.gather(rows[c.name], user if c.of_user else self.items) for c in columns}


def user_requests(inputs: Inputs, columns: Sequence[ServedColumn], items: int) -> Iterator[UserRequest]:
    """A request for each user, told apart by all of the user's columns: his own rows' items, then those that follow."""
    names = [column.name for column in columns if column.of_user]
    total = len(inputs[columns[0].name])
    own: dict[tuple[object, ...], list[int]] = {}
    for place, cells in enumerate(zip(*(inputs[name].tolist() for name in names), strict=True)):
        own.setdefault(cells, []).append(place)
    for places in own.values():
        others = (places[0] + np.arange(total)) % total
        chosen = list(dict.fromkeys([*places[:items], *others.tolist()]))[:items]
        yield UserRequest(places[0], np.array(chosen))


def _cell(value: object) -> str:
    return (
        value.decode() if isinstance(value, bytes) else repr(value.item() if isinstance(value, np.generic) else value)
    )
