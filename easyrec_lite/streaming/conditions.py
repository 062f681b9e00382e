"""The conditions of publishing: bounds on the metrics of prequential evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from easyrec_lite.config import Problem, did_you_mean, metric_names, one_of, quote
from easyrec_lite.protos import pipeline_pb2, stream_pb2

_PATH = "stream_config.publish"
_ALWAYS = ("auc", "logloss", "calibration")  # what prequential evaluation adds for each binary label
_SMALLER_IS_BETTER = ("logloss", "mean_absolute_error", "mean_squared_error", "root_mean_squared_error")


@dataclass(frozen=True)
class Failure:
    """A condition that does not hold.

    Attributes:
        metric: its name.
        value: of the window; None if there is none.
        bound: at_least, at_most or worse_by_at_most.
        limit: its value in the config.
        served: the metric of the version published last, where the bound is on the difference.
    """

    metric: str
    value: float | None
    bound: str
    limit: float
    served: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return (
                f"no window with {self.metric} has ended yet, and there is a bound on it: {self.bound} {self.limit:g}"
            )
        if self.served is None:
            return f"{self.metric} {self.value:.6g} is not {self.bound.replace('_', ' ')} {self.limit:g}"
        return (
            f"{self.metric} {self.value:.6g} is worse by more than {self.limit:g} than {self.served:.6g},"
            " that of the version published last"
        )


def failure(
    conditions: Sequence[stream_pb2.PublishCondition],
    metrics: Mapping[str, float],
    served: Sequence[Mapping[str, float]] = (),
) -> Failure | None:
    """The first condition that does not hold; NaN meets none.

    Args:
        conditions: see `check`.
        metrics: of the last prequential window; empty if none ended yet.
        served: metrics of the versions that are there, newest first. `worse_by_at_most` compares with the first that
            has the metric, and holds if none has.
    """
    for condition in conditions:
        name = condition.metric
        value = metrics.get(name)
        for bound, limit in _bounds(condition):
            if value is None:
                return Failure(name, None, bound, limit)
            if bound == "worse_by_at_most":
                before = next((known[name] for known in served if name in known), None)
                if before is not None and not _worse_by(name, value, before) <= limit:
                    return Failure(name, value, bound, limit, before)
            elif not (value >= limit if bound == "at_least" else value <= limit):
                return Failure(name, value, bound, limit)
    return None


def _bounds(condition: stream_pb2.PublishCondition) -> Iterator[tuple[str, float]]:
    for bound in ("at_least", "at_most", "worse_by_at_most"):
        if condition.HasField(bound):  # type: ignore[arg-type]
            # As it is written in the config: a float of 32 bits is a little off.
            yield bound, float(f"{getattr(condition, bound):.7g}")


def _worse_by(name: str, value: float, before: float) -> float:
    """How much worse a value is; below 0 if it is better. Rounded, for 0.7 - 0.69 is a little above 0.01."""
    kind = name.removeprefix("running_")
    if kind.startswith("calibration"):  # 1 is best
        value, before = abs(value - 1.0), abs(before - 1.0)
    smaller_is_better = kind.startswith((*_SMALLER_IS_BETTER, "calibration"))
    return round(value - before if smaller_is_better else before - value, 9)


def check(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    """What is wrong with `stream_config.publish`."""
    stream = config.stream_config
    if not stream.HasField("publish"):
        return
    publish = stream.publish
    if not (publish.every_rows or publish.every_seconds or publish.HasField("every_event_minutes")):
        expected = "every_rows, every_seconds or every_event_minutes above 0"
        yield Problem(_PATH, "no period", expected, "leave publish out to publish nothing")
    if publish.HasField("every_event_minutes"):
        yield from _check_minutes(config)
    for place, condition in enumerate(publish.conditions):
        yield from _check_condition(config, f"{_PATH}.conditions[{place}]", condition)


def _check_minutes(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    path, minutes = f"{_PATH}.every_event_minutes", config.stream_config.publish.every_event_minutes
    if not (math.isfinite(minutes) and minutes >= 0.001):
        yield Problem(path, f"{minutes:g}", "minutes above 0", "leave it out to publish by rows or seconds")
    if not config.data_config.event_time_field and not config.HasField("kafka_train_input"):
        found, expected = f"{minutes:g}, and rows without an event time", "data_config.event_time_field"
        yield Problem(path, found, expected, "name the column of the time, or publish by every_rows")


def _check_condition(
    config: pipeline_pb2.EasyRecConfig, path: str, condition: stream_pb2.PublishCondition
) -> Iterator[Problem]:
    bounds = dict(_bounds(condition))
    if not bounds:
        yield Problem(path, "no bound", "at_least, at_most or worse_by_at_most")
    if bounds.get("at_least", -math.inf) > bounds.get("at_most", math.inf):
        found = f"at_least {bounds['at_least']:g}, at_most {bounds['at_most']:g}"
        yield Problem(path, found, "at_least below at_most: no value meets both")
    if not config.stream_config.HasField("prequential"):
        expected = "stream_config.prequential: conditions are on its metrics"
        yield Problem(path, "a condition, and no prequential evaluation", expected)
    elif condition.metric not in (names := _reported(config)):
        hint = did_you_mean(condition.metric, names)
        yield Problem(f"{path}.metric", f"the unknown metric {quote(condition.metric)}", one_of(sorted(names)), hint)


def _reported(config: pipeline_pb2.EasyRecConfig) -> set[str]:
    """The names under which prequential evaluation reports metrics."""
    towers = [f"_{tower.tower_name}" for tower in config.model_config.dbmtl.task_towers]
    names = metric_names(config) | {f"{kind}{tower}" for kind in _ALWAYS for tower in towers or [""]}
    # What needs the rows of a group has no running value.
    return names | {f"running_{name}" for name in names if not name.startswith(("gauc", "session_auc"))}
