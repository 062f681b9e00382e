"""Plain NumPy versions of what the collection does, row by row, and small helpers to build collections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from easyrec_lite.embeddings import EmbeddingCollection, TableSpec, TableView, table_initializer
from easyrec_lite.features import Ids


def spec(name: str, rows: int, dim: int, *owners: str) -> TableSpec:
    return TableSpec(name, rows, dim, owners or (name,), table_initializer(None, dim))


def dense(*ids: int) -> Ids:
    return Ids(tf.constant(ids, tf.int64))


def ragged(rows: Sequence[Sequence[object]], weights: Sequence[Sequence[float]] | None = None) -> Ids:
    """`[B, None]` or, where a row holds lists, `[B, None, None]`."""
    rank = 2 if any(isinstance(step, list) for row in rows for step in row) else 1
    ids = tf.ragged.constant(rows, tf.int64, ragged_rank=rank, row_splits_dtype=tf.int64)
    if weights is None:
        return Ids(ids)
    return Ids(ids, tf.ragged.constant(weights, tf.float32, ragged_rank=rank, row_splits_dtype=tf.int64))


def view(collection: EmbeddingCollection, name: str) -> TableView:
    return next(view for view in collection.views() if view.name == f"embeddings/{name}")


def read(collection: EmbeddingCollection, name: str) -> np.ndarray:
    found = view(collection, name)
    return found.read(0, found.shape[0])


def row(table: np.ndarray, index: int) -> np.ndarray:
    """Zeros for an id outside of the table."""
    return table[index] if 0 <= index < len(table) else np.zeros(table.shape[1], table.dtype)


def concat(tables: Sequence[np.ndarray], ids: Sequence[Sequence[int]]) -> np.ndarray:
    columns = [np.stack([row(table, i) for i in column]) for table, column in zip(tables, ids, strict=True)]
    return np.concatenate(columns, axis=1)


def pool(
    table: np.ndarray, bags: Sequence[Sequence[int]], combiner: str, weights: Sequence[Sequence[float]] | None = None
) -> np.ndarray:
    """`tf.nn.safe_embedding_lookup_sparse`: missing ids, and weights <= 0 unless summing, are left out."""
    result = np.zeros((len(bags), table.shape[1]))
    for place, bag in enumerate(bags):
        given = [1.0] * len(bag) if weights is None else weights[place]
        kept = [(i, w) for i, w in zip(bag, given, strict=True) if 0 <= i < len(table) and (w > 0 or combiner == "sum")]
        total = sum((w * table[i].astype(np.float64) for i, w in kept), np.zeros(table.shape[1]))
        if combiner == "mean":
            total = total / (sum(w for _, w in kept) or 1.0)
        elif combiner == "sqrtn":
            total = total / (np.sqrt(sum(w * w for _, w in kept)) or 1.0)
        result[place] = total
    return result


def adam(
    state: list[np.ndarray], gradient: np.ndarray, rate: float, step: int, beta1: float, beta2: float, epsilon: float
) -> None:
    """One textbook step on one row, in place; `state` is [weights, m, v]."""
    weights, m, v = state
    m[:] = beta1 * m + (1 - beta1) * gradient
    v[:] = beta2 * v + (1 - beta2) * gradient**2
    rate *= np.sqrt(1 - beta2**step) / (1 - beta1**step)
    weights -= rate * m / (np.sqrt(v) + epsilon)


def adagrad(state: list[np.ndarray], gradient: np.ndarray, rate: float, epsilon: float) -> None:
    """One step on one row, in place; `state` is [weights, accumulator]."""
    weights, accumulator = state
    accumulator += gradient**2
    weights -= rate * gradient / np.sqrt(accumulator + epsilon)
