"""Watches single numbers of a window: rates, shares, metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from easyrec_lite.streaming.drift.judging import Judge, first_breach
from easyrec_lite.streaming.drift.levels import Kind, Level, Sample
from easyrec_lite.streaming.drift.types import Measurement, WindowFacts

_SHARE = Kind()
KINDS: Mapping[str, Kind] = {
    # Bursts and pauses are usual: rows a second vary by tenths even where the time of the day is accounted for.
    "row_rate": Kind(share=False, deviation=0.15, prior=5.0, least=0.1),
    # What waits unread explains a silence, so what doesn't is no accident of fetching.
    "partition_silent": Kind(spread=False),
    "unseen_rate": _SHARE,
    "duplicates": _SHARE,
    "calibration": Kind(share=False, deviation=0.05, prior=5.0, least=0.01, fixed=1.0),
    "auc_fall": Kind(share=False, deviation=0.01, prior=5.0, least=0.01, rises=True),
}
_UNKNOWN_TRAFFIC = 0.5  # deviation of the logarithm of rows a second in the course of a day
_METRICS = {"calibration": "calibration", "auc": "auc_fall", "gauc": "auc_fall"}

Key = tuple[str, str]


@dataclass(frozen=True)
class Found:
    """A number of a window.

    Attributes:
        check: which check it is for.
        subject: of what.
        sample: the number; of row_rate its logarithm, without the usual course of day and week.
        factor: that course.
        doubt: standard error beyond that of the level.
        silent: it means nothing this time.
    """

    check: str
    subject: str
    sample: Sample
    factor: float = 1.0
    doubt: float = 0.0
    silent: bool = False


class LevelWatch:
    """Compares numbers with their usual levels.

    Args:
        windows: that a level is learned from.
        half_life: windows after which one counts half; 0 for a level that stays.
    """

    def __init__(self, windows: int, half_life: float) -> None:
        self._windows = windows
        self._half_life = half_life
        self._levels: dict[Key, Level] = {}

    def end_window(self, found: Iterable[Found], judge: Judge) -> list[Measurement]:
        """Measures the numbers of a window."""
        measurements = []
        for number in found:
            if not judge.watches(number.check, number.subject):
                continue
            level = self._level(number)
            breached = False
            if level.ready and not number.silent:
                measurements.append(self._measure(level, number, judge))
                breached = measurements[-1].breached
            if breached or number.silent:
                level.skip()
            else:
                level.add(number.sample, self._half_life)
        return measurements

    def _level(self, number: Found) -> Level:
        key = (number.check, number.subject)
        if key not in self._levels:
            kind = KINDS[number.check]
            self._levels[key] = Level(kind, self._windows if kind.fixed is None else 0)
        return self._levels[key]

    @staticmethod
    def _measure(level: Level, number: Found, judge: Judge) -> Measurement:
        attempts = []
        for sample in filter(None, (number.sample, level.pooled(number.sample))):
            value, reference = sample.value, level.reference
            if number.check == "row_rate":
                value, reference = math.exp(value) * number.factor, math.exp(reference) * number.factor
            attempts.append(judge(number.check, number.subject, value, reference, level.sigmas(sample, number.doubt)))
        return attempts[first_breach(attempts)]

    def samples(self, facts: WindowFacts, rows: float, traffic: float, known: bool) -> list[Found]:
        """The numbers that a window's facts hold.

        Args:
            facts: of the window.
            rows: how many it has.
            traffic: rows a second that are usual at its time, over the mean.
            known: whether that is known; else it is 1.
        """
        found = []
        if facts.event_time is not None and facts.event_time[1] > facts.event_time[0] and rows:
            rate = rows / (facts.event_time[1] - facts.event_time[0])
            doubt = 0.0 if known else _UNKNOWN_TRAFFIC
            found.append(Found("row_rate", "", Sample(math.log(rate / traffic)), traffic, doubt))
        messages = sum(facts.messages.values())
        seen = {int(subject) for check, subject in self._levels if check == "partition_silent"}
        for partition in sorted(seen | set(facts.messages)) if messages else ():
            share = facts.messages.get(partition, 0) / messages
            silent = partition in facts.waiting
            found.append(Found("partition_silent", str(partition), Sample(share, messages), silent=silent))
        for name, value in facts.metrics.items():
            check = _METRICS.get(name.split("_")[0])
            if check is not None and math.isfinite(value):
                found.append(Found(check, name, Sample(value)))
        return found

    def accept(self, keys: set[Key]) -> None:
        """The usual levels of these are learned from the windows that follow."""
        for check, subject in keys:
            if (check, subject) in self._levels:
                self._levels[check, subject] = Level(KINDS[check], self._windows)

    def state(self) -> list[list[Any]]:
        """For a checkpoint."""
        return [[check, subject, level.state()] for (check, subject), level in self._levels.items()]

    def restore(self, state: Iterable[list[Any]]) -> None:
        """Takes back what `state` gave."""
        self._levels = {(check, subject): Level.restore(KINDS[check], level) for check, subject, level in state}
