"""A growing store of rows, for metrics that need all of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from easyrec_lite.metrics.metric import Array, State


class Rows:
    """Columns of equal length, appended in chunks and joined when read.

    Args:
        dtypes: by column name.
        optional: columns that are left out until a chunk has them; rows without them read as 1.
    """

    def __init__(self, dtypes: dict[str, npt.DTypeLike], optional: tuple[str, ...] = ()) -> None:
        self._dtypes = {key: np.dtype(dtype) for key, dtype in dtypes.items()}
        self._optional = optional
        self._chunks: list[State] = []

    def append(self, **columns: Array | None) -> None:
        """Adds rows; an optional column may be None."""
        chunk = {key: np.array(value, self._dtypes[key]) for key, value in columns.items() if value is not None}
        if next(iter(chunk.values())).size:
            self._chunks.append(chunk)

    def extend(self, other: Rows) -> None:
        """Adds another store's rows."""
        self._chunks.extend(other._chunks)

    def columns(self) -> State:
        """All columns joined; optional ones only if any row has them."""
        if len(self._chunks) != 1:
            keys = [k for k in self._dtypes if k not in self._optional or any(k in chunk for chunk in self._chunks)]
            self._chunks = [{key: self._join(key) for key in keys}]
        return self._chunks[0]

    def _join(self, key: str) -> Array:
        parts = [chunk[key] if key in chunk else np.ones(_length(chunk), self._dtypes[key]) for chunk in self._chunks]
        return np.concatenate(parts) if parts else np.zeros(0, self._dtypes[key])

    def replace(self, state: State) -> None:
        """Takes the columns of a saved state.

        Raises:
            ValueError: columns are missing, unknown, or not of one length.
        """
        required = self._dtypes.keys() - set(self._optional)
        found = {key: np.shape(value) for key, value in state.items()}
        if not required <= found.keys() <= self._dtypes.keys() or len(set(found.values())) > 1:
            raise ValueError(f"Expected columns {sorted(self._dtypes)} of one length. Received: {found}")
        self._chunks = [{key: np.array(value, self._dtypes[key]) for key, value in state.items()}]


def _length(chunk: State) -> int:
    return int(next(iter(chunk.values())).size)
