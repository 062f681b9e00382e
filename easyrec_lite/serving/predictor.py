"""Predictions in Python over an exported model."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from easyrec_lite.errors import UserError
from easyrec_lite.inputs.convert import EXACT_FLOATS
from easyrec_lite.serving.columns import SINGLE_INPUT, ServedColumn
from easyrec_lite.serving.export import DESCRIPTION

Rows = pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]] | Sequence[str]


class PredictionError(UserError):
    """The rows, or the folder of the model, can't be used."""


class Predictor:
    """Loads an export and predicts rows.

        predictor = Predictor("exports/multi_tower")
        predictor.predict([{"user_id": 7, "item_id": 3, ...}, ...])["probs"]

    Args:
        model_dir: a version folder, or its parent, of which the highest version is taken.

    Attributes:
        columns: the inputs of the model.
        description: what the export says of itself: step, metrics, features.

    Raises:
        PredictionError: there is no export.
    """

    def __init__(self, model_dir: str | Path) -> None:
        self.path = _version_folder(Path(model_dir))
        self.description: dict[str, Any] = _description(self.path)
        self.columns = [ServedColumn.from_json(column) for column in self.description["columns"]]
        self._separator: str | None = self.description["single_input_separator"]
        self._model = tf.saved_model.load(str(self.path))
        self._serve = self._model.signatures["serving_default"]

    def predict(self, rows: Rows, batch_size: int = 4096) -> dict[str, np.ndarray]:
        """Predictions `[N]` (vectors `[N, D]`) by name.

        Args:
            rows: a frame; a mapping of columns; a list of rows, each a mapping or, for EasyRec's forms, the cells in
                the order of `columns`: a list, or a string joined by the separator of the config. Cells that are left
                out or empty take the column's default.
            batch_size: rows a call of the model.

        Raises:
            PredictionError: the rows have none of the model's columns, or cells that don't fit theirs.
        """
        if batch_size < 1:
            raise PredictionError(f"batch_size: found {batch_size}; expected at least 1.")
        columns = self._columns_of(rows)
        count = len(next(iter(columns.values())))
        parts = []
        for start in range(0, max(count, 1), batch_size):
            inputs = {name: values[start : start + batch_size] for name, values in columns.items()}
            parts.append({name: value.numpy() for name, value in self._serve(**self._feed(inputs)).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _columns_of(self, rows: Rows) -> dict[str, np.ndarray]:
        cells, count = self._cells_of(rows)
        if count and not any(column.name in cells for column in self.columns):
            names = ", ".join(column.name for column in self.columns)
            raise PredictionError(f"rows: found none of the model's columns; expected some of {names}.")
        return {c.name: _convert(c, cells[c.name] if c.name in cells else [None] * count) for c in self.columns}

    def _cells_of(self, rows: Rows) -> tuple[Mapping[str, Sequence[Any]], int]:
        """Cells as they were given, by column, and the number of rows."""
        names = [column.name for column in self.columns]
        if not isinstance(rows, pd.DataFrame | Mapping | Sequence | np.ndarray):
            raise PredictionError(_not_rows(rows))
        if isinstance(rows, pd.DataFrame):
            return {name: list(rows[name]) for name in names if name in rows}, len(rows)
        if isinstance(rows, Mapping):
            given = {name: rows[name] for name in names if name in rows}
            scalars = [n for n, values in given.items() if isinstance(values, str) or not hasattr(values, "__len__")]
            if scalars:
                raise PredictionError(
                    f"rows: found one value for {scalars[0]!r}; expected a list of values for each column."
                    " Predict one row by [{...}]."
                )
            cells = {name: list(values) for name, values in given.items()}
            lengths = {name: len(values) for name, values in cells.items()}
            if len(set(lengths.values())) > 1:
                raise PredictionError(f"rows: found columns of different lengths, {lengths}; expected one length.")
            return cells, max(lengths.values(), default=1)
        if not isinstance(rows, str) and all(isinstance(row, str | list | tuple) for row in rows):
            split = [self._in_order(place, row) for place, row in enumerate(rows)]
            return {n: [row[i] if i < len(row) else None for row in split] for i, n in enumerate(names)}, len(split)
        if not isinstance(rows, str) and all(isinstance(row, Mapping) for row in rows):
            # Not by way of a frame, which would make 7.0 of a 7 above an empty cell.
            known = [name for name in names if any(name in row for row in rows)]
            return {name: [row.get(name) for row in rows] for name in known}, len(rows)  # type: ignore[union-attr]
        raise PredictionError(_not_rows(rows))

    def _in_order(self, place: int, row: Any) -> Sequence[Any]:
        """The cells of a row that doesn't name them, in the order of `columns`."""
        cells = row.split(self._separator or ",") if isinstance(row, str) else row
        if len(cells) > len(self.columns):
            names = ", ".join(column.name for column in self.columns)
            raise PredictionError(f"rows[{place}]: found {len(cells)} cells; expected {len(self.columns)}: {names}.")
        return cells

    def _feed(self, columns: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
        if self._separator is None:
            return {column.name: tf.constant(columns[column.name], column.dtype) for column in self.columns}
        cells = {column.name: [_text(value) for value in columns[column.name]] for column in self.columns}
        for name, values in cells.items():
            if found := next((value for value in values if self._separator in value), None):
                raise PredictionError(
                    f"Column {name!r}: found {found!r}; expected no {self._separator!r}, which parts the cells of this"
                    " export's one input. Export with export_config.multi_placeholder: true."
                )
        rows = [self._separator.join(row) for row in zip(*cells.values(), strict=True)]
        return {SINGLE_INPUT: tf.constant(rows, tf.string)}


def _not_rows(rows: object) -> str:
    return (
        f"rows: found {type(rows).__name__} {str(rows)[:50]!r}; expected a list of mappings, of lists or of"
        " strings, a mapping of columns or a DataFrame."
    )


def _convert(column: ServedColumn, values: Sequence[Any]) -> np.ndarray:
    """A column of the model's type `[N]`, defaults filled in."""
    if column.dtype == tf.string:
        read: Callable[[Any], Any] = functools.partial(_join, column)
    else:
        read = _reader(column.dtype)
    result = np.empty(len(values), object if column.dtype == tf.string else column.dtype.as_numpy_dtype)
    for place, value in enumerate(values):
        try:
            result[place] = column.default if _is_missing(value) else read(value)
        except (ValueError, TypeError, OverflowError):
            raise PredictionError(
                f"rows[{place}], column {column.name!r}: found {value!r}; expected {_expected(column)}."
                f" Leave the cell out for {column.default!r}."
            ) from None
    return result


def _expected(column: ServedColumn) -> str:
    if column.items is None:
        return column.dtype.name
    return f"a list of {column.items.name}, or its items joined by {column.separator!r}"


def _reader(dtype: tf.DType) -> Callable[[Any], Any]:
    """Reads one value, or raises what `_convert` tells of."""
    return _text if dtype == tf.string else _whole if dtype.is_integer else _number


def _is_missing(value: Any) -> bool:
    """Whether training would read the cell as missing: nothing, NaN or an empty text."""
    if isinstance(value, str | bytes):
        return not value
    return value is None or (not isinstance(value, list | tuple | np.ndarray) and bool(pd.isna(value)))


def _whole(value: Any) -> int:
    number = int(value)
    if not isinstance(value, str | bytes) and number != value:
        raise ValueError
    return number


def _number(value: Any) -> np.float32:
    with np.errstate(over="ignore"):
        number = np.float32(value)
    if not np.isfinite(number):
        raise ValueError
    return number


def _join(column: ServedColumn, value: Any) -> str:
    """Text; of a list, the items joined, once they are seen to be what the column takes."""
    if column.items is None:
        return _text(value)
    if not isinstance(value, list | tuple | np.ndarray):
        value = _text(value).split(column.separator)
    read = _reader(column.items)
    items = ["" if _is_missing(item) else str(read(item)) for item in value]
    if any(column.separator in item for item in items):
        raise ValueError
    return column.separator.join(items)


def _text(value: Any) -> str:
    """A cell as training reads it where it wants text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float | np.floating):
        whole = float(value).is_integer() and abs(float(value)) < EXACT_FLOATS
        return str(int(value)) if whole else str(pa.scalar(value).cast(pa.string()))
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def _version_folder(path: Path) -> Path:
    if (path / "saved_model.pb").exists():
        return path
    versions = [child for child in path.glob("*") if child.name.isdigit() and (child / "saved_model.pb").exists()]
    if not versions:
        raise PredictionError(
            f"{path}: expected an exported model (saved_model.pb, or folders of versions with one); found none."
            " Export one by: python -m easyrec_lite.export --config x.config --export_dir DIR"
        )
    return max(versions, key=lambda child: int(child.name))


def _description(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "assets" / DESCRIPTION).read_text())
    except FileNotFoundError:
        raise PredictionError(
            f"{path}: found no assets/{DESCRIPTION}; expected a model that easyrec_lite exported. TensorFlow's own"
            " tf.saved_model.load reads others."
        ) from None
