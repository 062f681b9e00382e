"""Recall of the own item among candidates, for matching models."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from easyrec_lite.metrics.metric import Accumulator, Array, checked_weights, total_weight, weighted_sum


def ranks_of_positives(similarity: npt.ArrayLike, positives: npt.ArrayLike | None = None) -> Array:
    """How many other candidates score at least as high as a row's positive one: 0 is best, ties count against it.

    A model that gives all candidates one score gets the last rank, not the first.

    Args:
        similarity: [B, M].
        positives: [B] the positive's column; None: column i for row i.

    Returns:
        [B] ranks from 0; NaN where a score in the row is NaN.

    Raises:
        ValueError: similarity is no matrix, or a positive's column is not in it.
    """
    scores = np.asarray(similarity)
    if scores.ndim != 2:
        raise ValueError(f"Similarities must be [rows, candidates]. Received: shape {scores.shape}")
    rows = np.arange(scores.shape[0])
    columns = rows if positives is None else np.ravel(np.asarray(positives)).astype(np.int64)
    if columns.shape != rows.shape or np.any((columns < 0) | (columns >= scores.shape[1])):
        raise ValueError(
            f"Positives must be a column in [0, {scores.shape[1]}) for each of {rows.size} rows. Received: {columns}"
        )
    ranks = (scores >= scores[rows, columns][:, None]).sum(axis=1) - 1.0
    return np.where(np.isnan(scores).any(axis=1), np.nan, ranks)


class RecallAtK(Accumulator):
    """Share of rows whose own item is among the k best candidates.

    `update` takes similarities [B, M]; `update_ranks` takes ranks that were worked out elsewhere (on the device, which
    saves moving the matrix).

    Raises:
        ValueError: k is below 1.
    """

    def __init__(self, k: int, name: str | None = None) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1. Received: {k}")
        super().__init__(name or f"recall@{k}", {"hits": np.zeros(()), "weight": np.zeros(())}, k=k)
        self.k = k

    def update(
        self,
        labels: npt.ArrayLike | None,
        scores: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        groups: Any = None,
    ) -> None:
        """Adds rows: labels [B] the columns of the own items (None: the diagonal), scores [B, M]."""
        self.update_ranks(ranks_of_positives(scores, labels), weights)

    def update_ranks(self, ranks: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> None:
        """Adds rows by their own item's rank, [B] from 0."""
        flat = np.ravel(np.asarray(ranks, np.float64))
        w = checked_weights(self.name, weights, flat.size)
        hits = np.where(np.isnan(flat), np.nan, flat < self.k)
        self._add(hits=weighted_sum(hits, w), weight=total_weight(w, flat.size))

    def result(self) -> float:
        """The share so far."""
        weight = float(self._sums["weight"])
        return float(self._sums["hits"]) / weight if weight > 0 else float("nan")
