"""Predictions in Python over an exported model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from easyrec_lite.errors import UserError
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
        self.description: dict[str, Any] = json.loads((self.path / "assets" / DESCRIPTION).read_text())
        self.columns = [ServedColumn.from_json(column) for column in self.description["columns"]]
        self._separator: str | None = self.description["single_input_separator"]
        self._model = tf.saved_model.load(str(self.path))
        self._serve = self._model.signatures["serving_default"]

    def predict(self, rows: Rows, batch_size: int = 4096) -> dict[str, np.ndarray]:
        """Predictions `[N]` (vectors `[N, D]`) by name.

        Args:
            rows: a frame; a mapping of columns; a list of rows, each a mapping or, for EasyRec's form, a string of
                cells joined by the separator of the config. Cells that are left out or None take the column's default.
            batch_size: rows a call of the model.

        Raises:
            PredictionError: a column can't be converted.
        """
        columns = self._columns_of(rows)
        count = len(next(iter(columns.values())))
        parts = []
        for start in range(0, max(count, 1), batch_size):
            inputs = {name: values[start : start + batch_size] for name, values in columns.items()}
            parts.append({name: value.numpy() for name, value in self._serve(**self._feed(inputs)).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _columns_of(self, rows: Rows) -> dict[str, np.ndarray]:
        if isinstance(rows, Sequence) and rows and isinstance(rows[0], str):
            separator = self._separator or ","
            cells = [str(row).split(separator) for row in rows]
            rows = {
                column.name: [row[place] if place < len(row) else None for row in cells]
                for place, column in enumerate(self.columns)
            }
        frame = pd.DataFrame(list(rows) if isinstance(rows, Sequence) else rows)  # type: ignore[arg-type]
        unknown = [column.name for column in self.columns if column.name not in frame]
        if len(unknown) == len(self.columns):
            raise PredictionError(f"The rows have none of the model's columns: {', '.join(unknown)}.")
        empty = pd.Series([None] * len(frame), dtype=object)
        return {c.name: _convert(c, frame.get(c.name, empty)) for c in self.columns}

    def _feed(self, columns: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
        if self._separator is None:
            return {column.name: tf.constant(columns[column.name], column.dtype) for column in self.columns}
        cells = [[_text(value) for value in columns[column.name]] for column in self.columns]
        return {SINGLE_INPUT: tf.constant([self._separator.join(row) for row in zip(*cells, strict=True)])}


def _convert(column: ServedColumn, values: pd.Series) -> np.ndarray:
    """A column of the model's type `[N]`, defaults filled in."""
    cells = [column.default if _is_missing(value) else value for value in values]
    try:
        if column.dtype == tf.string:
            return np.array([_join(value, column.separator) for value in cells], dtype=object)
        return np.array(cells, dtype=column.dtype.as_numpy_dtype)
    except (ValueError, TypeError) as error:
        bad = next(value for value in cells if not _is_number(value))
        raise PredictionError(
            f"Column {column.name!r} takes {column.dtype.name}; found {bad!r}."
            f" Leave the cell out for {column.default!r}."
        ) from error


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and np.isnan(value))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _join(value: Any, separator: str) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return (separator or "|").join(_text(item) for item in value)
    return _text(value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


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
