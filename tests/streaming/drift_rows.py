"""Rows, references and windows for the tests of drift detection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from easyrec_lite.features import (
    FeatureProfile,
    IdProfile,
    Ids,
    LabelProfile,
    Numbers,
    Profile,
    Statistics,
)
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming.drift import Detector, Measurement, WatchedBatch, WindowFacts

MONDAY = 1_704_067_200.0
STATISTICS = "statistics.json"


class Ragged:
    """Lists of values, as ragged tensors give them."""

    def __init__(self, rows: Sequence[Sequence[Any]], dtype: Any = np.int64) -> None:
        self.flat_values = np.array([value for row in rows for value in row], dtype)
        self.row_splits = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)


def config(**fields: Any) -> stream_pb2.DriftConfig:
    """A config; checks are given as dicts."""
    result = stream_pb2.DriftConfig()
    for name, value in fields.items():
        if isinstance(value, dict):
            getattr(result, name).CopyFrom(stream_pb2.DriftCheck(**value))
        else:
            setattr(result, name, value)
    return result


def watching(profile: Profile | None = None, **fields: Any) -> Detector:
    """A detector; with a profile as its reference if there is one."""
    if profile is not None:
        fields["reference_statistics"] = STATISTICS
    return Detector(config(**fields), profile)


def batch(
    labels: Mapping[str, Any] | None = None, missing: Mapping[str, int] | None = None, **features: Any
) -> WatchedBatch:
    """A batch without times: arrays of integers are ids, of floats numbers; Ragged as they are."""
    encoded: dict[str, Any] = {}
    for name, values in features.items():
        flat = values.flat_values if isinstance(values, Ragged) else (values := np.asarray(values))
        if np.issubdtype(flat.dtype, np.integer):
            encoded[name] = Ids(values)
        elif isinstance(values, Ragged):
            encoded[name] = Numbers(values)
        else:
            encoded[name] = Numbers(values.astype(np.float32).reshape(len(values), -1))
    arrays = {name: np.asarray(values, np.float32) for name, values in (labels or {}).items()}
    first = next(iter(features.values()), None)
    rows = len(first.row_splits) - 1 if isinstance(first, Ragged) else len(first)
    return WatchedBatch(rows, encoded, arrays, missing or {})


def window(detector: Detector, *batches: WatchedBatch, **facts: Any) -> dict[tuple[str, str], Measurement]:
    """Measures these batches as one window."""
    for one in batches:
        detector.update(one)
    rows = sum(one.rows for one in batches)
    found = detector.end_window(WindowFacts(0, rows, 0, len(batches), **facts))
    return {(one.check, one.subject): one for one in found}


def breaches(found: Mapping[tuple[str, str], Measurement]) -> set[tuple[str, str]]:
    """Which were breached."""
    return {key for key, one in found.items() if one.breached}


def profile_of(batches: Iterable[WatchedBatch]) -> Profile:
    """The statistics of batches, through their JSON."""
    seen = Statistics()
    for one in batches:
        seen.update(one.encoded, one.labels, one.times, one.missing)
    return Profile.from_json(seen.to_json())


def label_profile(mean: float, count: int = 1_000_000, std: float | None = None) -> Profile:
    """A reference that knows a label, and an id feature with one id."""
    std = (mean * (1 - mean)) ** 0.5 if std is None else std
    ids = IdProfile(count, 1, [count] + [0] * 1023)
    return Profile(count, None, None, {"clk": LabelProfile(count, mean, std)}, {"f": FeatureProfile(0, ids=ids)})


def labelled(positives: int, rows: int) -> WatchedBatch:
    """Rows with so many positive labels."""
    return batch({"clk": np.arange(rows) < positives}, f=np.zeros(rows, np.int64))
