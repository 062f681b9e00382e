"""How sure a metric is: the bootstrap over rows, or over users where rows of one user go together (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from easyrec_lite._insight.scoring import ScoredRows
from easyrec_lite.errors import UserError
from easyrec_lite.metrics import AUC, GAUC
from easyrec_lite.metrics.auc import group_aucs
from easyrec_lite.models import BoundMetric

Floats = npt.NDArray[np.float64]
# How often each row was drawn [N] -> the metric of that sample.
_Replica = Callable[[Floats], float]


def bootstrap(
    scored: Sequence[ScoredRows], *, by: str | None = None, samples: int = 500, seed: int = 1
) -> dict[str, Floats]:
    """Metrics of resampled rows, for models that scored the same rows.

    Sample s holds the same rows for each of the models, so differences between them are paired. Where a metric groups
    rows (GAUC by user), whole groups are drawn; other metrics draw rows, or groups where `by` says so: rows of one
    user are alike, and intervals that forget it are too narrow.

    Args:
        scored: of each model; metrics that only some of them have are left out.
        by: the column whose values are drawn, each with all its rows; None as above.
        samples: how many.
        seed: of the draws.

    Returns:
        By metric, `[samples, models]`; NaN where a sample has no value (only one class).

    Raises:
        UserError: the rows differ, or have no such column, or no samples are asked for.
    """
    check_same_rows(scored)
    if samples < 1:
        raise UserError(f"samples: found {samples}; expected at least 1.")
    bound = [{metric.name: metric for metric in rows.bound()} for rows in scored]
    names = [name for name in bound[0] if all(name in metrics for metrics in bound)]
    results = {name: np.full((samples, len(scored)), np.nan) for name in names}
    clusters: dict[str, list[str]] = {}
    for name in names:
        clusters.setdefault(by or bound[0][name].group, []).append(name)
    for column, drawn in clusters.items():
        replicas = {
            name: [_replica(rows, metrics[name]) for rows, metrics in zip(scored, bound, strict=True)] for name in drawn
        }
        for sample, counts in enumerate(_draws(scored[0], column, samples, seed)):
            for name in drawn:
                results[name][sample] = [replica(counts) for replica in replicas[name]]
    return results


def interval(values: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap values `[samples]`; NaNs do not count."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def check_same_rows(scored: Sequence[ScoredRows]) -> None:
    """Raises UserError unless all models scored rows with the same labels, in one order."""
    first = scored[0]
    for place, rows in enumerate(scored[1:], 1):
        shared = [name for name in first.labels if name in rows.labels]
        same = len(rows) == len(first) and shared
        if not same or any(not np.array_equal(first.labels[name], rows.labels[name]) for name in shared):
            raise UserError(
                f"compare: models 0 and {place} were scored on different rows ({len(first):,} and {len(rows):,}, labels"
                f" {list(first.labels)} and {list(rows.labels)}); expected the same ones. Give the rows by data=."
            )


def _draws(rows: ScoredRows, column: str, samples: int, seed: int) -> Iterator[Floats]:
    """How often each row is in each sample."""
    rng = np.random.default_rng(seed)
    count = len(rows)
    if not column:
        for _ in range(samples):
            yield np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        return
    if column not in rows.columns:
        raise UserError(f"by: found {column!r}; expected a column of single values: {', '.join(rows.columns)}.")
    codes, keys = pd.factorize(rows.columns[column])
    for _ in range(samples):
        drawn = np.bincount(rng.integers(0, len(keys), len(keys)), minlength=len(keys))
        yield drawn[codes].astype(np.float64)


def _replica(rows: ScoredRows, metric: BoundMetric) -> _Replica:
    """A metric as a function of how often each row was drawn; what does not change is computed once."""
    kind, own = metric.metric, metric.row_weight(rows.weight)
    if isinstance(kind, GAUC):
        return _grouped(rows, metric, kind)
    if isinstance(kind, AUC):
        return _ranked(rows.labels[metric.label] > 0.5, rows.predictions[metric.score], own)

    def again(counts: Floats) -> float:
        (fresh,) = (candidate for candidate in rows.bound() if candidate.name == metric.name)
        weight = counts if own is None else counts * own
        fresh.update(rows.predictions, rows.labels, weight, rows.columns)
        return float(fresh.metric.result())

    return again


def _ranked(positive: np.ndarray, scores: np.ndarray, weight: np.ndarray | None) -> _Replica:
    """AUC, the rows sorted once."""
    order = np.argsort(scores, kind="stable")
    ordered, label = scores[order], positive[order].astype(np.float64)
    ties = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    own = np.ones(len(order)) if weight is None else weight[order].astype(np.float64)

    def auc(counts: Floats) -> float:
        mass = counts[order] * own
        positives = np.add.reduceat(mass * label, ties)
        negatives = np.add.reduceat(mass, ties) - positives
        pairs = positives.sum() * negatives.sum()
        below = np.cumsum(negatives) - negatives
        return float(np.dot(positives, below + 0.5 * negatives) / pairs) if pairs > 0 else float("nan")

    return auc


def _grouped(rows: ScoredRows, metric: BoundMetric, kind: GAUC) -> _Replica:
    """GAUC over drawn groups: the AUC of each group stays what it is."""
    codes, _ = pd.factorize(rows.columns[metric.group])
    first = np.unique(codes, return_index=True)[1]  # by code: factorize counts codes in the order of first rows
    scores = rows.predictions[metric.score].astype(np.float32)
    own = metric.row_weight(rows.weight)
    weight = None if own is None else own.astype(np.float64)
    auc, positives, negatives = group_aucs(rows.labels[metric.label] == 1, scores, weight, codes)
    both = ~np.isnan(auc)
    shares: Mapping[str, Floats] = {
        "mean": np.ones_like(auc),
        "mean_by_sample_num": positives + negatives,
        "mean_by_positive_num": positives,
    }
    share = shares[kind.reduction]

    def gauc(counts: Floats) -> float:
        mass = (counts[first] * share)[both]
        return float(np.dot(mass, auc[both]) / mass.sum()) if mass.sum() > 0 else float("nan")

    return gauc
