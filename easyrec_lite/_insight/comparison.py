"""Models beside each other: in what their configs differ, and whether their metrics do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from google.protobuf.message import Message

from easyrec_lite._insight.bootstrap import bootstrap, interval
from easyrec_lite._insight.scoring import ScoredRows, better_when_smaller
from easyrec_lite.config import changed_fields, effective_name, find
from easyrec_lite.protos import pipeline_pb2


def config_differences(
    configs: Mapping[str, pipeline_pb2.EasyRecConfig], leave_out: Sequence[str] = ()
) -> pd.DataFrame:
    """The fields in which any config differs from the first, one row a path, one column a config.

    Of a list, such as features by their names, the others show what they lack and what they have more.
    """
    (first, base), *others = configs.items()
    values: dict[str, dict[str, str]] = {}
    for name, config in others:
        for change in changed_fields(base, config):
            if change.path not in leave_out:
                old, new = _items(base, change.path), _items(config, change.path)
                shown = change.old if old is None else f"{len(old)}: {', '.join(old)}"
                row = values.setdefault(change.path, dict.fromkeys(configs, shown))
                row[name] = change.new if old is None or new is None else _list_difference(old, new)
    rows = [{"path": path, **row} for path, row in values.items()]
    return pd.DataFrame(rows, columns=["path", *configs]) if rows else pd.DataFrame(columns=["path", first])


def metric_comparison(
    scored: Mapping[str, ScoredRows],
    *,
    by: str | None = None,
    samples: int = 500,
    confidence: float = 0.95,
    seed: int = 1,
) -> pd.DataFrame:
    """The metrics of models on the same rows, with bootstrap intervals.

    Args:
        scored: by name; the first is what the others are compared with.
        by: see `bootstrap`.
        samples: of the bootstrap.
        confidence: of the intervals.
        seed: of the bootstrap.

    Returns:
        One row a metric and model: `metric`, `model`, `value`, `low`, `high`, then `difference` to the first model, its
        own paired interval `difference_low`, `difference_high`, and `verdict`: "better", "worse", or "unclear" where
        the interval holds 0.

    Raises:
        UserError: the rows differ.
    """
    names = list(scored)
    draws = bootstrap(list(scored.values()), by=by, samples=samples, seed=seed)
    values = {name: rows.metrics() for name, rows in scored.items()}
    records = []
    for metric, sampled in draws.items():
        for place, name in enumerate(names):
            low, high = interval(sampled[:, place], confidence)
            record = {"metric": metric, "model": name, "value": values[name][metric], "low": low, "high": high}
            if place:
                lower, upper = interval(sampled[:, place] - sampled[:, 0], confidence)
                record |= {
                    "difference": values[name][metric] - values[names[0]][metric],
                    "difference_low": lower,
                    "difference_high": upper,
                    "verdict": _verdict(lower, upper, better_when_smaller(metric, scored[name].tasks)),
                }
            records.append(record)
    return pd.DataFrame.from_records(records)


def _items(config: pipeline_pb2.EasyRecConfig, path: str) -> list[str] | None:
    """The items of a list, by name if they have one; None of any other field."""
    (target, *_) = find(config, path)
    value = target.get()
    if not isinstance(value, list):
        return None
    return [effective_name(item) or "?" if isinstance(item, Message) else str(item) for item in value]


def _list_difference(old: Sequence[str], new: Sequence[str]) -> str:
    less = [item for item in old if item not in new]
    more = [item for item in new if item not in old]
    parts = [f"without {', '.join(less)}"] if less and more != list(new) else []
    parts += [f"with {', '.join(more)}"] if more and more != list(new) else []
    return "; ".join(parts) or ", ".join(new) or "nothing"


def _verdict(low: float, high: float, smaller: bool) -> str:
    if np.isnan(low) or low <= 0 <= high:
        return "unclear"
    return "better" if (low > 0) is not smaller else "worse"


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, those that come again with a number."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result
