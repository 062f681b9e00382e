"""The checks of the drift monitor, their defaults, and what can be wrong with their config."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from easyrec_lite.config import Problem, did_you_mean
from easyrec_lite.errors import UserError
from easyrec_lite.features import Profile
from easyrec_lite.features.base import feature_name
from easyrec_lite.protos import pipeline_pb2, stream_pb2

STATISTICS = "statistics.json"
FIRST_WINDOWS = 10  # that a reference is learned from, unless the config says how many


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        threshold: default: how far is too far.
        action: default, a value of `AlarmAction`.
        unit: how a distance is measured: `factor` (times as much or as little, less 1), `relative` change, `points`
            of difference, the `index` itself, or `share` of what is expected.
        subjects: what is watched: features, labels, partitions, metrics, or rows as a whole.
        sigmas: default: how many standard errors from the reference are more than chance.
    """

    threshold: float
    action: int
    unit: str
    subjects: str
    sigmas: float = 5.0

    def distance(self, value: float, reference: float) -> float:
        """How far a value is from its reference, in the unit of the threshold; never negative."""
        if self.unit in ("points", "index"):
            return abs(value - reference)
        if value == reference:
            return 1.0 if self.unit == "share" else 0.0
        if self.unit == "relative":
            return abs(value / reference - 1.0) if reference else math.inf
        if self.unit == "share":
            return value / reference if reference else math.inf
        return max(value / reference, reference / value) - 1.0 if value > 0 and reference > 0 else math.inf

    def too_far(self, distance: float, threshold: float) -> bool:
        """Whether a distance is past a threshold."""
        return distance < threshold if self.unit == "share" else distance > threshold


CHECKS: Mapping[str, Check] = {
    "row_rate": Check(1.0, stream_pb2.WARN, "factor", "rows"),
    "partition_silent": Check(0.1, stream_pb2.HOLD, "share", "partitions"),
    "label_mean": Check(0.1, stream_pb2.STOP, "relative", "labels", sigmas=4.0),
    "missing_rate": Check(0.02, stream_pb2.STOP, "points", "features"),
    "unseen_rate": Check(0.02, stream_pb2.HOLD, "points", "features"),
    "distribution": Check(0.2, stream_pb2.HOLD, "index", "features"),
    "duplicates": Check(0.01, stream_pb2.HOLD, "points", "rows"),
    "calibration": Check(0.2, stream_pb2.HOLD, "relative", "metrics"),
    "auc_fall": Check(0.03, stream_pb2.HOLD, "points", "metrics"),
}


@dataclass(frozen=True)
class Setting:
    """A check as configured, complete.

    Attributes:
        enabled: whether it is made.
        threshold: how far is too far.
        patience: windows in a row for an alarm.
        action: a value of `AlarmAction`.
        only: the subjects that are watched; empty for all.
        ignore: the subjects that are not.
        sigmas: how many standard errors from the reference are more than chance.
    """

    enabled: bool
    threshold: float
    patience: int
    action: int
    only: frozenset[str]
    ignore: frozenset[str]
    sigmas: float

    def watches(self, subject: str) -> bool:
        """Whether a subject is watched: a feature also by the name of one of its parts, such as `hist/length`."""
        names = {subject, subject.rsplit("/", 1)[0]}
        return self.enabled and (not self.only or bool(names & self.only)) and not names & self.ignore


def settings(config: stream_pb2.DriftConfig) -> dict[str, Setting]:
    """Every check as configured, with its defaults."""
    result = {}
    for name, default in CHECKS.items():
        found: stream_pb2.DriftCheck = getattr(config, name)
        result[name] = Setting(
            found.enabled,
            # A float32 of the config as the number that was written: 0.1, not 0.10000000149.
            float(f"{found.threshold:.7g}") if found.HasField("threshold") else default.threshold,
            found.patience,
            found.action if found.HasField("action") else default.action,
            frozenset(found.only),
            frozenset(found.ignore),
            config.sigmas if config.HasField("sigmas") else default.sigmas,
        )
    return result


def load_reference(path: str) -> Profile:
    """The profile at `reference_statistics`.

    Args:
        path: a statistics.json, or the folder of a model that holds one.

    Raises:
        UserError: there is none, or it is something else.
    """
    file = Path(path)
    if file.is_dir():
        file /= STATISTICS
    try:
        return Profile.from_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"stream_config.drift.reference_statistics: {file} can't be read ({error.strerror or error}). Expected a "
            f"{STATISTICS}, which training writes into its model_dir, or such a folder."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"stream_config.drift.reference_statistics: {file} holds no statistics of training data ({error}). "
            f"Expected the {STATISTICS} of a model_dir."
        ) from error


def check(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    """What is wrong with `stream_config.drift`: a check for `load_config`."""
    if not config.stream_config.HasField("drift"):
        return
    drift, path = config.stream_config.drift, "stream_config.drift"
    timed = bool(config.data_config.event_time_field) or config.HasField("kafka_train_input")
    yield from _check_windows(drift, path, timed)
    if drift.HasField("sigmas") and not (math.isfinite(drift.sigmas) and drift.sigmas > 0):
        yield Problem(f"{path}.sigmas", f"{drift.sigmas:g}", "a number above 0", "leave it out for the defaults")
    if not drift.release_windows:
        yield Problem(f"{path}.release_windows", "0", "at least 1")
    yield from _check_reference(drift, path)
    known = {
        "labels": set(config.data_config.label_fields),
        "features": {feature_name(feature) for feature in config.features},
    }
    for name, default in CHECKS.items():
        if drift.HasField(name):
            yield from _check_one(getattr(drift, name), f"{path}.{name}", default, known)
    needs = {
        "row_rate": (timed, "rows with an event time", "data_config.event_time_field"),
        "calibration": (config.stream_config.HasField("prequential"), "prequential evaluation", "prequential {}"),
        "auc_fall": (config.stream_config.HasField("prequential"), "prequential evaluation", "prequential {}"),
    }
    for name, (there, what, remedy) in needs.items():
        if drift.HasField(name) and getattr(drift, name).enabled and not there:
            yield Problem(f"{path}.{name}", f"a check that needs {what}", remedy, f"add it, or leave {name} out")


def _check_windows(drift: stream_pb2.DriftConfig, path: str, timed: bool) -> Iterator[Problem]:
    if not drift.window_rows:
        yield Problem(f"{path}.window_rows", "0", "at least 1")
    if not drift.HasField("window_event_minutes"):
        return
    path, minutes = f"{path}.window_event_minutes", drift.window_event_minutes
    if not (math.isfinite(minutes) and minutes >= 0.001):
        yield Problem(path, f"{minutes:g}", "minutes above 0", "leave it out for windows of window_rows")
    if drift.HasField("window_rows"):
        found = f"{minutes:g}, with window_rows {drift.window_rows}"
        yield Problem(path, found, "one of the two: a window is of rows or of event time")
    if not timed:
        found, hint = f"{minutes:g}, and rows without an event time", "name the column of the time, or use window_rows"
        yield Problem(path, found, "data_config.event_time_field", hint)


def _check_reference(drift: stream_pb2.DriftConfig, path: str) -> Iterator[Problem]:
    kind = drift.WhichOneof("reference")
    if kind == "reference_statistics" and not drift.reference_statistics:
        yield Problem(f"{path}.{kind}", "''", f"a {STATISTICS}, or the model_dir that holds one")
    if kind == "reference_first_windows" and drift.reference_first_windows < 2:
        yield Problem(f"{path}.{kind}", str(drift.reference_first_windows), "at least 2", "10 is the default")
    half_life = drift.reference_half_life_windows
    if kind == "reference_half_life_windows" and not (math.isfinite(half_life) and half_life >= 0.5):
        yield Problem(f"{path}.{kind}", f"{half_life:g}", "at least 0.5")


def _check_one(
    found: stream_pb2.DriftCheck, path: str, default: Check, known: Mapping[str, set[str]]
) -> Iterator[Problem]:
    threshold = found.threshold if found.HasField("threshold") else default.threshold
    if not (math.isfinite(threshold) and threshold > 0):
        yield Problem(
            f"{path}.threshold", f"{threshold:g}", "a number above 0", f"{default.threshold:g} is the default"
        )
    elif default.unit == "share" and threshold >= 1:
        yield Problem(f"{path}.threshold", f"{threshold:g}", "a share below 1, of what is expected")
    if not found.patience:
        yield Problem(f"{path}.patience", "0", "at least 1")
    for list_name in ("only", "ignore"):
        for name in getattr(found, list_name):
            names = known.get(default.subjects)
            if default.subjects == "rows":
                yield Problem(f"{path}.{list_name}", name, "nothing: this check has one subject only")
            elif default.subjects == "partitions" and not name.isdigit():
                yield Problem(f"{path}.{list_name}", name, "the number of a partition")
            elif names is not None and name.rsplit("/", 1)[0] not in names and name not in names:
                singular = default.subjects.removesuffix("s")
                yield Problem(f"{path}.{list_name}", name, f"the name of a {singular}", did_you_mean(name, names))
