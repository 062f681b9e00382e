"""What the drift detector is told, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from easyrec_lite.features.hashing import HashedIds


@dataclass(frozen=True)
class WatchedBatch:
    """A batch that was trained on.

    Attributes:
        rows: how many rows.
        encoded: features by name, `Ids` or `Numbers` of arrays, or of objects with `flat_values` and `row_splits`.
        labels: by name, `[B]` or `[B, dim]`.
        missing: rows without a value, by feature, where the reader knows better: a missing number is encoded as 0.
        event_time: the least and the greatest event time of its rows, seconds since 1970; None if unknown.
        times: the event time of each row, `[B]`, if known; 0 and below is missing. Says more than `event_time`.
        hashed: the ids of `encoded`, if somebody else counts them too.
    """

    rows: int
    encoded: Mapping[str, Any]
    labels: Mapping[str, np.ndarray]
    missing: Mapping[str, int] = field(default_factory=dict)
    event_time: tuple[float, float] | None = None
    times: np.ndarray | None = None
    hashed: Callable[[], HashedIds] | None = None


@dataclass(frozen=True)
class WindowFacts:
    """What only the trainer's side knows of a window.

    Attributes:
        from_row: rows trained before it, since the start of the run; `to_row` with it.
        from_step: steps done before it; `to_step` with it.
        event_time: the least and the greatest event time of its rows, if known.
        messages: messages taken, by partition; empty for files.
        waiting: partitions whose silence means nothing: unread messages wait there, or they are at their end.
        metrics: those of the last prequential window that ended in this window; empty if none did.
    """

    from_row: int
    to_row: int
    from_step: int
    to_step: int
    event_time: tuple[float, float] | None = None
    messages: Mapping[int, int] = field(default_factory=dict)
    waiting: frozenset[int] = frozenset()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contribution:
    """A part of what changed.

    Attributes:
        what: ids, or a range of numbers.
        share: of the window's values.
        reference_share: what it should be.
    """

    what: str
    share: float
    reference_share: float


@dataclass(frozen=True)
class Measurement:
    """One check of one subject in one window.

    Attributes:
        check: name of the DriftConfig field.
        subject: feature, label, partition or metric; '' where there is one only.
        value: what was measured, in this window or over the last two.
        reference: what it should be, at this time of the day and of the week if that is known.
        threshold: how far from it is too far; `CHECKS[check].distance` says how far it is.
        sigmas: how many standard errors from it; None where there is no telling.
        breached: both the threshold and the configured sigmas are passed.
        contributions: what changed most; only of breaches.
    """

    check: str
    subject: str
    value: float
    reference: float
    threshold: float
    sigmas: float | None
    breached: bool
    contributions: tuple[Contribution, ...] = ()
