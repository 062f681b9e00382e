"""Click and purchase of the generated ads data: probabilities that depend on visible columns alone.

The log-odds of a click are a sum of factors, each scaled to a stated share of the whole. Effects of ids (an item's
quality, a brand's tier) are fixed functions of the id, so a model that had learnt them all would reach the
expected label exactly; nothing about the label is hidden but the toss of the coin.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tools.data._ads_population import (
    HISTORY,
    POSITIONS,
    PROFILE,
    Histories,
    Impressions,
    Population,
    event_times,
)
from tools.data._random import Floats, Ints, Stream

CLICK_RATE = 0.08
PURCHASE_RATE = 0.10  # of the clicks
CLICK_VARIANCE = 1.2  # of the log-odds; the best AUC is then about Phi(sqrt(1.2 / 2))
CLICK_SHARES = {
    "context: position": 0.13,
    "context: hour and weekday": 0.03,
    "context: hour x topic": 0.03,
    "item: category": 0.09,
    "item: brand": 0.03,
    "item: quality": 0.05,
    "item: price": 0.02,
    "user: profile": 0.08,
    "user: id": 0.02,
    "taste: segment x category": 0.17,
    "taste: occupation x category": 0.04,
    "taste: city x category": 0.02,
    "taste: spending x price and brand": 0.05,
    "history: category": 0.10,
    "history: topic": 0.07,
    "history: brand and item": 0.03,
    "history: category x age": 0.06,
}
PURCHASE_DEVIATIONS = {"price": 0.5, "quality": 0.3, "spending": 0.3, "history: category": 0.5, "history: brand": 0.3}

_PROBES = 32_768
_RECENCY = 20.0  # views after which a view counts 1/e
_HEAD = 2e-4  # share of the impressions from which on an item counts as well known
_BRAND_HEAD = 1e-3


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels and their expectations, every array [B]."""

    click: Ints
    buy: Ints
    expected_click: Floats
    expected_buy: Floats


class LabelModel:
    """Gives every impression with its history the probability of a click and of a purchase."""

    def __init__(self, population: Population, seed: int):
        self._population = population
        self._seed = seed
        catalogue = population.catalogue
        category, brand, item = (np.arange(n) for n in (catalogue.categories, catalogue.brands, catalogue.items))
        self._category = Stream(seed, "category effect").normal(category)
        # Little-known ids are near the mean: what differs between them could not be learnt from a million rows.
        brand_share = np.bincount(catalogue.brand, weights=catalogue.item_share, minlength=catalogue.brands)
        self.brand_shrinkage: Floats = np.sqrt(brand_share / (brand_share + _BRAND_HEAD))
        self._brand = self.brand_shrinkage * Stream(seed, "brand effect").normal(brand)
        self.item_shrinkage: Floats = np.sqrt(catalogue.item_share / (catalogue.item_share + _HEAD))
        self._quality = self.item_shrinkage * Stream(seed, "item effect").normal(item)
        self._topic_hour = Stream(seed, "topic hour").uniform(np.arange(64)) * 24
        self._profile = {
            name: np.concatenate([[0.0], Stream(seed, f"profile effect/{name}").normal(np.arange(levels))])
            for name, levels in PROFILE.items()
            if name != "cms_segid"
        }
        self._calibrate()

    def _calibrate(self) -> None:
        """Scales every factor to its share and sets the intercepts, on rows that are in no file."""
        row = np.arange(_PROBES) + (1 << 40)
        probes = self._population.impressions(row, event_times(np.arange(_PROBES), _PROBES, 7, self._seed))
        click, purchase = self._factors(probes, self._population.histories(probes))
        self._click_scale = _scales(click, {name: share**0.5 for name, share in CLICK_SHARES.items()})
        # The factors go together (users see what they like), so the whole is scaled once more.
        whole = float(np.sqrt(CLICK_VARIANCE / _weighted_sum(click, self._click_scale).var()))
        self._click_scale = {name: (mean, scale * whole) for name, (mean, scale) in self._click_scale.items()}
        self._purchase_scale = _scales(purchase, PURCHASE_DEVIATIONS)
        score = _weighted_sum(click, self._click_scale)
        self._click_intercept = _intercept(score, np.ones(_PROBES), CLICK_RATE)
        clicked = _sigmoid(self._click_intercept + score)
        self._purchase_intercept = _intercept(_weighted_sum(purchase, self._purchase_scale), clicked, PURCHASE_RATE)

    def expectations(self, impressions: Impressions, histories: Histories) -> tuple[Floats, Floats]:
        """The expected click and purchase labels [B] given the visible columns."""
        click, purchase = self._factors(impressions, histories)
        clicked = _sigmoid(self._click_intercept + _weighted_sum(click, self._click_scale))
        bought = _sigmoid(self._purchase_intercept + _weighted_sum(purchase, self._purchase_scale))
        return clicked, clicked * bought

    def labels(self, impressions: Impressions, histories: Histories) -> Labels:
        """Tosses the coins."""
        clicked, bought = self.expectations(impressions, histories)
        click = Stream(self._seed, "row/click").uniform(impressions.row) < clicked
        buy = click & (Stream(self._seed, "row/buy").uniform(impressions.row) * clicked < bought)
        return Labels(click.astype(np.int64), buy.astype(np.int64), clicked, bought)

    def click_factors(self, impressions: Impressions, histories: Histories) -> dict[str, Floats]:
        """What each factor adds to the log-odds of a click, [B] each."""
        click, _ = self._factors(impressions, histories)
        return {name: (click[name] - mean) * scale for name, (mean, scale) in self._click_scale.items()}

    def click_deviation(self, factor: str) -> float:
        """What one unit of a factor, before scaling, adds to the log-odds of a click."""
        return float(self._click_scale[factor][1])

    def _factors(self, seen: Impressions, viewed: Histories) -> tuple[dict[str, Floats], dict[str, Floats]]:
        catalogue, tastes, profile = self._population.catalogue, self._population.tastes, seen.profile
        category, brand = catalogue.category[seen.item], catalogue.brand[seen.item]
        topic = catalogue.topic[category]
        price = np.clip((np.log(catalogue.price[seen.item].astype(np.float64)) - 3.5) / 1.15, -2.5, 2.5)
        spending = _level(profile["pvalue_level"], (0.0, -1.0, 0.0, 1.5)) * price
        spending += _level(profile["shopping_level"], (0.0, -1.0, -0.3, 0.6)) * np.tanh(catalogue.tier[brand])
        same_category, same_topic, same_brand = self._affinities(seen, viewed)
        attachment = _level(profile["age_level"], (0.0, -1.4, -1.0, -0.4, 0.2, 0.7, 1.1, 1.4))
        hour, weekday = seen.hour.astype(np.float64), seen.weekday
        click = {
            "context: position": -0.4 * np.minimum(seen.pid, POSITIONS),
            "context: hour and weekday": np.cos((hour - 21.0) * np.pi / 12) + 0.6 * (weekday >= 5),
            "context: hour x topic": np.cos((hour - self._topic_hour[topic]) * np.pi / 12),
            "item: category": self._category[category],
            "item: brand": self._brand[brand],
            "item: quality": self._quality[seen.item],
            "item: price": -price,
            "user: profile": sum(
                (effect[profile[name]] for name, effect in self._profile.items()), np.zeros(len(hour))
            ),
            "user: id": Stream(self._seed, "user effect").normal(seen.user),
            "taste: segment x category": tastes.segment[profile["cms_segid"], category],
            "taste: occupation x category": tastes.occupation[profile["occupation"], category],
            "taste: city x category": tastes.city[profile["city_level"], category],
            "taste: spending x price and brand": spending,
            "history: category": same_category,
            "history: topic": same_topic,
            "history: brand and item": same_brand,
            "history: category x age": same_category * attachment,
        }
        purchase = {
            "price": -price,
            "quality": self._quality[seen.item],
            "spending": spending,
            "history: category": same_category,
            "history: brand": same_brand,
        }
        return click, purchase

    def _affinities(self, seen: Impressions, viewed: Histories) -> tuple[Floats, Floats, Floats]:
        """How far the history is about the item [B]: its category (log of a count), topic (share), brand (0 to 1).

        Recent views count more.
        """
        catalogue, rows = self._population.catalogue, len(seen.item)
        weight = np.exp(-np.arange(HISTORY) / _RECENCY)[viewed.position]
        target = seen.item[viewed.owner]

        def total(weights: Floats) -> Floats:
            # bincount adds one by one, in order: the same bits however many rows there are.
            return np.bincount(viewed.owner, weights=weights, minlength=rows).astype(np.float64)

        category, viewed_category = catalogue.category[target], catalogue.category[viewed.item]
        same_brand = (catalogue.brand[target] == catalogue.brand[viewed.item]) * 1.0 + (target == viewed.item)
        same_topic = catalogue.topic[category] == catalogue.topic[viewed_category]
        return (
            np.log1p(total(weight * (category == viewed_category))),
            total(weight * same_topic) / np.maximum(total(weight), 1e-9),
            -np.expm1(-total(weight * same_brand)),
        )


def _level(level: Ints, effects: tuple[float, ...]) -> Floats:
    return np.array(effects)[level]


def _scales(factors: dict[str, Floats], deviations: dict[str, float]) -> dict[str, tuple[float, float]]:
    """(mean, multiplier) that give every factor mean 0 and the stated standard deviation."""
    return {name: (values.mean(), deviations[name] / max(values.std(), 1e-9)) for name, values in factors.items()}


def _weighted_sum(factors: dict[str, Floats], scales: dict[str, tuple[float, float]]) -> Floats:
    return np.sum([(factors[name] - mean) * scale for name, (mean, scale) in scales.items()], axis=0)


def _sigmoid(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))


def _intercept(score: Floats, weight: Floats, rate: float) -> float:
    """The number that, added to `score`, makes the weighted mean probability `rate` (bisection)."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if np.average(_sigmoid(score + middle), weights=weight) < rate:
            low = middle
        else:
            high = middle
    return low
