"""What scores look like beside labels: calibration, distribution; and how training went."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from easyrec_lite.checkpoints import Journal
from easyrec_lite.errors import UserError

_Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal


def learning_history(path: Path) -> pd.DataFrame:
    """The records of `metrics.jsonl`, one a row: `step`, `kind` (train, evaluation, ...), then losses and metrics.

    A number that a record does not have is NaN. No file gives an empty frame.
    """
    records = [record for record in Journal(path).records() if isinstance(record.get("kind"), str)]
    frame = pd.DataFrame.from_records(records)
    return frame if records else pd.DataFrame({"step": pd.Series(dtype=int), "kind": pd.Series(dtype=str)})


def calibration(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    bins: int = 20,
    by: str = "quantile",
) -> pd.DataFrame:
    """How often rows of about one score are positive.

    Args:
        labels: `[N]`, 0 or 1 (or a probability).
        scores: `[N]` probabilities.
        weights: `[N]`, or None for 1 each.
        bins: at most so many; equal scores are never parted, so there may be fewer.
        by: "quantile" gives bins of about as many rows, "width" bins of one width between 0 and 1.

    Returns:
        One row a bin that has rows: `low` and `high` (least and greatest score), `rows`, `score` (mean), `rate` (mean
        label), `rate_low` and `rate_high` (95 % interval of the rate, Wilson 1927; by the number of rows, so weights
        make it narrower than it is).

    Raises:
        UserError: no rows, scores that are no numbers, or an unknown `by`.
    """
    y, p, w = _rows(labels, scores, weights)
    if bins < 1:
        raise UserError(f"bins: found {bins}; expected at least 1.")
    if by == "quantile":
        edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"))
        place = np.searchsorted(edges, p, side="left")
    elif by == "width":
        place = np.clip(np.floor(p * bins).astype(int), 0, bins - 1)
    else:
        raise UserError(f"by: found {by!r}; expected 'quantile' or 'width'.")
    records = []
    for bin_ in np.unique(place):
        inside = place == bin_
        total = w[inside].sum()
        if total <= 0:
            continue
        rate = float(np.dot(y[inside], w[inside]) / total)
        low, high = wilson(rate, int(inside.sum()))
        records.append(
            {
                "low": p[inside].min(),
                "high": p[inside].max(),
                "rows": int(inside.sum()),
                "score": float(np.dot(p[inside], w[inside]) / total),
                "rate": rate,
                "rate_low": low,
                "rate_high": high,
            }
        )
    return pd.DataFrame.from_records(records)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error (Naeini et al., 2015): the mean |score - rate| over bins, by their rows."""
    return float(np.average((table["score"] - table["rate"]).abs(), weights=table["rows"]))


def wilson(rate: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of a rate seen in so many rows (Wilson, 1927)."""
    centre = rate + _Z95**2 / (2 * rows)
    spread = _Z95 * math.sqrt(max(rate * (1 - rate), 0.0) / rows + _Z95**2 / (4 * rows**2))
    scale = 1 + _Z95**2 / rows
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def score_distribution(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, bins: int = 40
) -> pd.DataFrame:
    """Histograms of the scores of positive rows (label above 0.5) and of the others.

    Returns:
        One row a bin of equal width from the least score to the greatest: `low`, `high`, `negative` and `positive`:
        the share of the negatives' (positives') weight in it.

    Raises:
        UserError: no rows, or scores that are no numbers.
    """
    y, p, w = _rows(labels, scores, weights)
    edges = np.histogram_bin_edges(p, bins)
    shares = {}
    for name, chosen in (("negative", y <= 0.5), ("positive", y > 0.5)):
        counts, _ = np.histogram(p[chosen], edges, weights=w[chosen])
        shares[name] = counts / max(counts.sum(), 1e-300)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **shares})


def _rows(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    y, p = np.ravel(np.asarray(labels, np.float64)), np.ravel(np.asarray(scores, np.float64))
    w = np.ones(len(y)) if weights is None else np.ravel(np.asarray(weights, np.float64))
    if not len(y) or len(y) != len(p) or len(y) != len(w):
        raise UserError(f"Found {len(y)} labels, {len(p)} scores, {len(w)} weights; expected as many, and some.")
    if not np.isfinite(p).all():
        raise UserError(
            f"Found {int((~np.isfinite(p)).sum())} scores that are no finite numbers; has training diverged?"
        )
    return y, p, w
