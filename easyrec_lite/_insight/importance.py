"""What each input is worth to a trained model, by permutation (Breiman, 2001; Fisher et al., 2019)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from easyrec_lite._insight.scoring import ScoredRows, Scorer, better_when_smaller, take_rows
from easyrec_lite.config import did_you_mean
from easyrec_lite.embeddings import Concat
from easyrec_lite.errors import UserError
from easyrec_lite.models import Recommender

Track = Callable[[Sequence[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Unit:
    """What is shuffled together, rows against each other.

    Attributes:
        name: for people.
        members: names of columns, or of features.
    """

    name: str
    members: tuple[str, ...]


def column_units(recommender: Recommender) -> list[Unit]:
    """The raw columns; those that must agree in each row, the parallel histories of one attention map, go together.

    A column is shuffled for every feature that reads it: for `cate_id` also in its crosses, for `hist_item_id` as tags
    and as a sequence alike.
    """
    linked = [
        {column for name in names for column in recommender.features[name].inputs}
        for names in _parallel_features(recommender)
    ]
    return _units(recommender.feature_columns, linked)


def feature_units(recommender: Recommender) -> list[Unit]:
    """The features, each by itself though others may read its columns; parallel histories go together."""
    return _units(list(recommender.features), [set(names) for names in _parallel_features(recommender)])


def permutation_importance(
    scorer: Scorer,
    *,
    metric: str | None = None,
    by: str = "column",
    only: Sequence[str] | None = None,
    repeats: int = 5,
    seed: int = 1,
    track: Track | None = None,
) -> pd.DataFrame:
    """How much a metric suffers when an input is shuffled: what the model, as trained, gets from it.

    Inputs that tell the same share the credit: shuffling one leaves the other. Nothing is retrained.

    Args:
        scorer: the rows and the model.
        metric: as evaluations report it; None for the first of the config. "loss" works too.
        by: "column" shuffles raw columns, "feature" single features behind them.
        only: names of columns (features) to look at; None for all.
        repeats: shuffles of each.
        seed: of the shuffles; each input has shuffles of its own, whatever else is looked at.
        track: shows the progress over a sequence with a title.

    Returns:
        One row an input, most important first: `input`, `drop` (mean loss of quality: above 0 the input helps), `std`
        (over the repeats), `metric` (its mean with the input shuffled).

    Raises:
        UserError: a metric or a name that isn't there, or no repeats.
    """
    if by not in ("column", "feature"):
        raise UserError(f"by: found {by!r}; expected 'column' or 'feature'.")
    if repeats < 1:
        raise UserError(f"repeats: found {repeats}; expected at least 1.")
    units = column_units(scorer.recommender) if by == "column" else feature_units(scorer.recommender)
    units = _chosen(units, only, by)
    baseline = scorer()
    values = baseline.metrics()
    metric = metric or next(iter(values))
    if metric not in values or metric == "rows":
        raise UserError(f"metric: found {metric!r}; expected one of {[name for name in values if name != 'rows']}.")
    sign = -1.0 if better_when_smaller(metric, baseline.tasks) else 1.0
    records = []
    for unit in track(units, "importance") if track else units:
        found = [_shuffled(scorer, unit, by, seed, repeat).metrics()[metric] for repeat in range(repeats)]
        drops = [sign * (values[metric] - value) for value in found]
        std = float(np.std(drops, ddof=1)) if repeats > 1 else float("nan")
        records.append({"input": unit.name, "drop": np.mean(drops), "std": std, "metric": np.mean(found)})
    frame = pd.DataFrame.from_records(records).sort_values("drop", ascending=False, ignore_index=True)
    frame.attrs.update(metric=metric, baseline=values[metric], rows=scorer.rows, repeats=repeats)
    return frame


def _shuffled(scorer: Scorer, unit: Unit, by: str, seed: int, repeat: int) -> ScoredRows:
    places = np.random.default_rng([seed, zlib.crc32(unit.name.encode()), repeat]).permutation(scorer.rows)
    if by == "column":
        return scorer(columns={name: take_rows(scorer.columns[name], places) for name in unit.members})
    return scorer(encoded={name: take_rows(scorer.encoded(name), places) for name in unit.members})


def _parallel_features(recommender: Recommender) -> list[list[str]]:
    """Features whose sequences stand side by side, step by step."""
    specs = [spec for layout in recommender.layouts.values() for spec in layout.histories]
    specs += [piece.attention for layout in recommender.layouts.values() for piece in layout.pieces if piece.attention]
    requests = recommender.collection.requests
    names = []
    for spec in specs:
        histories = [requests[place] for place in spec.history]
        names.append([request.feature for request in histories if not isinstance(request, Concat)])
    return names


def _units(names: Sequence[str], linked: Sequence[set[str]]) -> list[Unit]:
    """Names that are linked, directly or through others, in one unit; in the order of the names."""
    group = {name: name for name in names}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for link in linked:
        first, *others = sorted(link & group.keys(), key=list(names).index)
        for other in others:
            group[root(other)] = root(first)
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(root(name), []).append(name)
    return [Unit(" + ".join(together), tuple(together)) for together in members.values()]


def _chosen(units: list[Unit], only: Sequence[str] | None, by: str) -> list[Unit]:
    if only is None:
        return units
    known = {member: unit for unit in units for member in (*unit.members, unit.name)}
    wanted = [only] if isinstance(only, str) else list(only)
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"only: found {name!r}; expected a {by} that the model reads. {hint}".rstrip())
    return list(dict.fromkeys(known[name] for name in wanted))
