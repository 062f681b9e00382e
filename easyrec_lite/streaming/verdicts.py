"""From measurements to alarms: patience, holding, and what is cleared."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from easyrec_lite.inputs.bad_rows import MASK
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming.alarms import ALARM, RELEASE, Key, Record

if TYPE_CHECKING:
    from easyrec_lite.streaming.drift import Measurement


class Rule(Protocol):
    """What is to be done about a check; see `drift.settings`."""

    @property
    def enabled(self) -> bool:
        """Whether it is made."""

    @property
    def patience(self) -> int:
        """Windows in a row that must be breached."""

    @property
    def action(self) -> int:
        """An AlarmAction."""

    def watches(self, subject: str) -> bool:
        """Whether it is made of a subject."""


@dataclass(frozen=True)
class Window:
    """The rows that are judged together.

    Attributes:
        from_row: its first row, of those trained since the start of the run.
        to_row: the first one behind it.
        from_step: steps done before it.
        to_step: steps done at its end.
        event_time: the least and the greatest of its rows, if known.
        start: the next message of each partition at its start.
        end: the same at its end.
        position: the next row to read behind it, JSON.
    """

    from_row: int
    to_row: int
    from_step: int
    to_step: int
    event_time: tuple[float, float] | None = None
    start: Mapping[int, int] = field(default_factory=dict)
    end: Mapping[int, int] = field(default_factory=dict)
    position: str | None = None

    @property
    def messages(self) -> dict[int, int]:
        """Messages taken, by partition."""
        return {number: offset - self.start.get(number, 0) for number, offset in self.end.items()}

    def to_json(self) -> dict[str, Any]:
        """As records name it."""
        times = {} if self.event_time is None else {"event_time": list(self.event_time)}
        return {"from_row": self.from_row, "to_row": self.to_row, **times}


@dataclass
class Breach:
    """Windows in a row that breached a check.

    Attributes:
        step: steps done before the first row that it may concern.
        row: that row.
        offsets: the next message of each partition before the first of the windows.
        windows: they, as far as they led to the alarm.
        alarmed: whether there was one.
    """

    step: int
    row: int
    offsets: dict[str, int]
    windows: list[dict[str, Any]] = field(default_factory=list)
    alarmed: bool = False


class Judge:
    """Remembers which checks are in breach and which alarms hold.

    A breach that goes on alarms once. A check that could not be made in a window neither ends nor prolongs its breach.
    What shows in a window may have begun in the one before, with which the detector judges it together: so that one's
    rows are cleared a window later, and what goes back goes back to before it.

    Args:
        rules: by check.
        release_windows: windows in a row without a breach after which a HOLD ends.
        private: subjects of which no value may be shown.
    """

    def __init__(self, rules: Mapping[str, Rule], release_windows: int, private: Collection[str] = ()) -> None:
        self._rules = {name: rule for name, rule in rules.items() if rule.enabled}
        self._release = release_windows
        self._private = frozenset(private)
        self._breaches: dict[Key, Breach] = {}
        self._held: dict[Key, int] = {}  # windows without a breach since
        self._before: tuple[int, int] | None = None  # first row of the window before, and the steps done before it

    @property
    def can_stop(self) -> bool:
        """Whether any check stops the training."""
        return any(rule.action == stream_pb2.STOP for rule in self._rules.values())

    @property
    def holding(self) -> bool:
        """Whether an alarm holds."""
        return bool(self._held)

    def cleared_row(self, row: int) -> int:
        """The first row that is not judged for good, or in a breach of which more is to be than told.

        Args:
            row: the first one of the window that has not ended.
        """
        breaches = [breach.row for (check, _), breach in self._breaches.items() if self._rules[check].action]
        return min([row, *breaches, *([self._before[0]] if self._before else [])])

    def sound_step(self, step: int) -> int:
        """Steps done before any row for which the training may be stopped.

        Args:
            step: steps done before the window that has not ended.
        """
        breaches = self._breaches.items()
        steps = [breach.step for (check, _), breach in breaches if self._rules[check].action == stream_pb2.STOP]
        return min([step, *steps, *([self._before[1]] if self._before else [])])

    def forget_window(self) -> None:
        """The next window does not follow the one before."""
        self._before = None

    def judge(self, measurements: Sequence[Measurement], window: Window) -> list[Record]:
        """The alarms and releases at the end of a window; see `AlarmLog`."""
        found: list[Record] = []
        for measurement in measurements:
            key = (measurement.check, measurement.subject)
            if not measurement.breached:
                self._breaches.pop(key, None)
                found += self._calm(key, window) if key in self._held else []
                continue
            rule = self._rules[measurement.check]
            if key not in self._breaches:
                offsets = {str(number): offset for number, offset in window.start.items()}
                row, step = self._before or (window.from_row, window.from_step)
                self._breaches[key] = Breach(step, row, offsets)
            breach = self._breaches[key]
            if not breach.alarmed:
                breach.windows.append(window.to_json())
                breach.alarmed = len(breach.windows) >= rule.patience
                found += [self._alarm(measurement, breach, window)] if breach.alarmed else []
            if key in self._held or (breach.alarmed and rule.action == stream_pb2.HOLD):
                self._held[key] = 0
        self._before = window.from_row, window.from_step
        return found

    def _watches(self, check: str, subject: str) -> bool:
        return check in self._rules and self._rules[check].watches(subject)

    def _calm(self, key: Key, window: Window) -> list[Record]:
        self._held[key] += 1
        if self._held[key] < self._release:
            return []
        del self._held[key]
        record = {"kind": RELEASE, "step": window.to_step, "check": key[0], "subject": key[1], "to_row": window.to_row}
        return [record]

    def _alarm(self, measurement: Measurement, breach: Breach, window: Window) -> Record:
        action = self._rules[measurement.check].action
        times = [time for one in breach.windows for time in one.get("event_time", ())]
        is_private = bool({measurement.subject, measurement.subject.rsplit("/", 1)[0]} & self._private)
        record: Record = {
            "kind": ALARM,
            "step": window.to_step,
            "check": measurement.check,
            "subject": measurement.subject,
            "action": stream_pb2.AlarmAction.Name(action),
            "value": _finite(measurement.value),
            "reference": _finite(measurement.reference),
            "threshold": _finite(measurement.threshold),
            "sigmas": _finite(measurement.sigmas),
            "windows": breach.windows,
            "contributions": [
                [MASK if is_private else one.what, _finite(one.share), _finite(one.reference_share)]
                for one in measurement.contributions
            ],
            "offsets": {str(number): [breach.offsets.get(str(number), 0), end] for number, end in window.end.items()},
            "event_time": [min(times), max(times)] if times else None,
        }
        return record | ({"position": window.position} if action == stream_pb2.STOP else {})

    def accept(self, keys: Collection[Key]) -> None:
        """Forgets what was found of these."""
        for key in keys:
            self._breaches.pop(key, None)
            self._held.pop(key, None)

    def state(self) -> dict[str, Any]:
        """All that is remembered, JSON-able."""
        return {
            "breaches": [[*key, asdict(breach)] for key, breach in self._breaches.items()],
            "held": [[*key, calm] for key, calm in self._held.items()],
            "before": self._before,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave, but for checks and subjects that are no longer watched."""
        self._breaches = {(c, s): Breach(**values) for c, s, values in state["breaches"] if self._watches(c, s)}
        self._held = {(c, s): calm for c, s, calm in state["held"] if self._watches(c, s)}
        self._before = tuple(state["before"]) if state["before"] else None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
