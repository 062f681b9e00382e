"""What a model can reach on the generated ads data, computed from the generator itself, without training one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.data._ads_labels import LabelModel, Labels
from tools.data._ads_population import Histories, Impressions, Population
from tools.data._random import Floats, Ints

_PRIOR_ROWS = 30  # rows of the mean rate that smooth an item's click rate
_REPLICAS = 16
_SAMPLE = 32_768
_TOP = 10


def auc(score: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Area under the ROC curve, exact, ties counted half.

    `positive` [N] holds labels or their expectations: then each row counts as positive with that weight and as
    negative with the rest, which is the AUC expected over the coins. NaN where one class is missing.
    """
    score, positive = np.asarray(score), np.asarray(positive, dtype=np.float64)
    _, place = np.unique(score, return_inverse=True)
    up = np.bincount(place, weights=positive)
    down = np.bincount(place, weights=1.0 - positive)
    total = up.sum() * down.sum()
    return float((up * (np.cumsum(down) - 0.5 * down)).sum() / total) if total > 0 else float("nan")


@dataclasses.dataclass
class _Part:
    rows: int = 0
    clicks: int = 0
    buys: int = 0
    views: int = 0
    empty: int = 0

    def add(self, viewed: Histories, labels: Labels) -> None:
        self.rows += len(labels.click)
        self.clicks += int(labels.click.sum())
        self.buys += int(labels.buy.sum())
        self.views += int(viewed.lengths.sum())
        self.empty += int((viewed.lengths == 0).sum())

    def figures(self) -> dict[str, float]:
        return {
            "rows": self.rows,
            "click_rate": self.clicks / self.rows,
            "buy_rate_of_clicks": self.buys / max(self.clicks, 1),
            "mean_history": self.views / self.rows,
            "empty_history_share": self.empty / self.rows,
        }


class Report:
    """Counts the training part, then judges the evaluation part."""

    def __init__(self, population: Population, model: LabelModel):
        self._population, self._model = population, model
        items = population.catalogue.items
        self._parts = {"train": _Part(), "eval": _Part()}
        self._shown = np.zeros(items, np.int64)
        self._clicked = np.zeros(items, np.int64)
        self._user_rows = np.zeros(population.users, np.int64)
        self._information = 0.0
        self._eval: list[dict[str, np.ndarray]] = []

    def add(self, part: str, seen: Impressions, viewed: Histories, labels: Labels) -> None:
        """Counts rows of a part, "train" or "eval". Of "eval" about 60 bytes a row are kept."""
        self._parts[part].add(viewed, labels)
        if part == "eval":
            kept = {"row": seen.row, "event_time": seen.event_time, "item": seen.item}
            self._eval.append(kept | {field.name: getattr(labels, field.name) for field in dataclasses.fields(labels)})
            return
        self._shown += np.bincount(seen.item, minlength=len(self._shown))
        self._clicked += np.bincount(seen.item[labels.click == 1], minlength=len(self._clicked))
        self._user_rows += np.bincount(seen.user, minlength=len(self._user_rows))
        self._information += float((labels.expected_click * (1 - labels.expected_click)).sum())

    def figures(self) -> dict[str, Any]:
        """All figures by name; `tools.data.taobao_like.describe` puts them in words. AUCs of one class are NaN."""
        rows = {name: np.concatenate([part[name] for part in self._eval]) for name in self._eval[0]}
        train = self._parts["train"]
        rate = train.clicks / train.rows
        popularity = (self._clicked + _PRIOR_ROWS * rate) / (self._shown + _PRIOR_ROWS)
        sample = np.unique(np.linspace(0, len(rows["row"]) - 1, _SAMPLE).astype(np.int64))
        seen = self._population.impressions(rows["row"][sample], rows["event_time"][sample])
        expected = rows["expected_click"][sample]
        return {
            "train": train.figures(),
            "eval": self._parts["eval"].figures(),
            "best_auc_click": auc(rows["expected_click"], rows["click"]),
            "best_auc_click_over_coins": auc(rows["expected_click"], rows["expected_click"]),
            "best_auc_buy": auc(rows["expected_buy"], rows["buy"]),
            "popularity_auc_click": auc(popularity[rows["item"]], rows["click"]),
            "best_auc_click_without_histories": self._without_histories(seen, expected),
            "click_log_odds": self._shares(seen),
            **self._recalls(rows),
        }

    def _without_histories(self, seen: Impressions, expected: Floats) -> dict[str, float]:
        """The best AUC of a model that does not see the histories: with them drawn anew, the mean of the probability.

        No score from fewer facts can beat the conditional expectation. `auc` is a bound from above for any model: its
        scorer knows every effect and from the user id even the user's hidden interests (given which histories do not
        depend on what is shown). `auc_new_user` knows every effect but only the row's other columns.
        """
        best = auc(expected, expected)
        known = self._auc_of_mean(seen, expected, lambda replica: None)
        unknown = self._auc_of_mean(seen, expected, lambda replica: self._population.interests_given(seen, replica))
        return {"auc": known, "falls_by": best - known, "auc_new_user": unknown, "best_on_these_rows": best}

    def _auc_of_mean(self, seen: Impressions, expected: Floats, interests: Callable[[int], Ints | None]) -> float:
        half = mean = np.zeros(len(expected))
        for replica in range(1, _REPLICAS + 1):
            viewed = self._population.histories(seen, replica, interests(replica))
            mean = mean + self._model.expectations(seen, viewed)[0]
            if replica == _REPLICAS // 2:
                half = mean
        # The mean of n draws is a worse score than the expectation by about 1 / n: two n give the limit.
        return 2 * auc(mean, expected) - auc(half, expected)

    def _shares(self, seen: Impressions) -> dict[str, Any]:
        factors = self._model.click_factors(seen, self._population.histories(seen))
        whole = np.sum(list(factors.values()), axis=0)
        variance = float(whole.var())
        catalogue = self._population.catalogue
        brand = catalogue.brand[seen.item]
        brand_rows = np.bincount(catalogue.brand, weights=self._shown, minlength=catalogue.brands)
        information = self._information / self._parts["train"].rows

        def unlearnable(factor: str, shrinkage: npt.ArrayLike, rows: np.ndarray) -> float:
            # The variance of an id's normal effect that is left after `rows` rows, everything else known (Fisher).
            prior = (self._model.click_deviation(factor) * np.asarray(shrinkage)) ** 2
            return float((prior / (1 + prior * information * rows)).mean() / variance)

        return {
            "variance": variance,
            "share_by_factor": {
                name: float(np.cov(values, whole, ddof=0)[0, 1] / variance) for name, values in factors.items()
            },
            "unlearnable_share": {
                "user: id": unlearnable("user: id", 1.0, self._user_rows[seen.user]),
                "item: quality": unlearnable(
                    "item: quality", self._model.item_shrinkage[seen.item], self._shown[seen.item]
                ),
                "item: brand": unlearnable("item: brand", self._model.brand_shrinkage[brand], brand_rows[brand]),
            },
        }

    def _recalls(self, rows: dict[str, np.ndarray]) -> dict[str, float]:
        """Recall@10 over all items of the evaluation's clicks, for three rankings that need no training."""
        clicked = np.flatnonzero(rows["click"])[: 4 * _SAMPLE]
        seen = self._population.impressions(rows["row"][clicked], rows["event_time"][clicked])
        viewed = self._population.histories(seen)
        catalogue = self._population.catalogue
        top = np.argsort(-self._clicked, kind="stable")[:_TOP]
        owner = np.repeat(np.arange(len(clicked)), self._population.exposure().shape[-1])
        interests = self._population.interests(seen.user, seen.profile["cms_segid"])
        exposure = np.tile(self._population.exposure(), len(clicked))
        return {
            "popularity_recall_at_10": float(np.isin(seen.item, top).mean()),
            "recall_at_10_of_history_counts": self._category_recall(
                seen.item, viewed.owner, catalogue.category[viewed.item], np.ones(len(viewed.owner)), self._clicked, top
            ),
            "recall_at_10_of_hidden_interests": self._category_recall(
                seen.item, owner, interests.ravel(), exposure, catalogue.share_in_category, top
            ),
        }

    def _category_recall(
        self, target: Ints, owner: Ints, category: Ints, weight: Floats, popularity: np.ndarray, top: Ints
    ) -> float:
        """Recall@10 when an item's score is its owner's weight of the category times its share of the category.

        `owner`, `category` and `weight` [N] may repeat a pair: weights add up. Who has none gets `top`.
        """
        catalogue = self._population.catalogue
        total = np.maximum(np.bincount(catalogue.category, weights=popularity, minlength=catalogue.categories), 1e-12)
        order = np.lexsort((-popularity, catalogue.category))
        best = order[np.minimum(catalogue.first[:, None] + np.arange(_TOP), catalogue.items - 1)]
        score = np.where(np.arange(_TOP) < catalogue.size[:, None], popularity[best] / total[:, None], -1.0)

        pairs, place = np.unique(owner * catalogue.categories + category, return_inverse=True)
        pair_owner, pair_category = pairs // catalogue.categories, pairs % catalogue.categories
        scores = (np.bincount(place, weights=weight)[:, None] * score[pair_category]).ravel()
        owners, items = np.repeat(pair_owner, _TOP), best[pair_category].ravel()
        order = np.lexsort((-scores, owners))
        owners, items = owners[order], items[order]
        starts = np.searchsorted(owners, np.arange(len(target)))
        listed = np.arange(len(owners)) - starts[owners] < _TOP
        hits = np.count_nonzero(listed & (items == target[owners]))
        without = np.setdiff1d(np.arange(len(target)), owners)
        return float((hits + np.count_nonzero(np.isin(target[without], top))) / len(target))
