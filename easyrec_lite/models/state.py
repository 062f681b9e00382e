"""The variables of a model as named tensors, for checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from easyrec_lite.embeddings import TableView
from easyrec_lite.models.recommender import Recommender


@dataclass(frozen=True)
class VariableView:
    """A dense variable as a checkpoint sees it."""

    name: str
    variable: keras.Variable | tf.Variable = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the variable."""
        return tuple(self.variable.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's type of the values."""
        return np.dtype(keras.backend.standardize_dtype(self.variable.dtype))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop of axis 0; a scalar is one row."""
        values = np.asarray(keras.ops.convert_to_numpy(self.variable))
        return values[start:stop] if values.shape else values.reshape(1)

    def write(self, start: int, array: np.ndarray) -> None:
        """Replaces the rows from `start` on."""
        if not self.shape:
            self.variable.assign(np.asarray(array).reshape(()))
        elif start == 0 and len(array) == self.shape[0]:
            self.variable.assign(array)
        else:
            values = np.array(keras.ops.convert_to_numpy(self.variable))
            values[start : start + len(array)] = array
            self.variable.assign(values)


def model_tensors(recommender: Recommender) -> list[TableView | VariableView]:
    """Tables and dense variables by name: what predictions depend on."""
    dense = [VariableView(f"dense/{variable.path}", variable) for variable in recommender.dense_variables]
    return [*recommender.collection.views(with_slots=False), *dense]
