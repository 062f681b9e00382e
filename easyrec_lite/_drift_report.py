"""The report of a drift monitor: its windows, checks and alarms as a page for people, and in short for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyrec_lite._drift_charts import Mark, Point, Span, chart, timeline
from easyrec_lite._html import Html, element, join, number, page, table
from easyrec_lite._run_records import ALARMS_FILE, METRICS_FILE, Record, RunRecords, read_records, title_of, when
from easyrec_lite.errors import UserError

Table = tuple[str, tuple[str, ...], list[tuple[Any, ...]]]

_TOP_SUBJECTS = 6  # shown at once for each check; the others are folded

# How a threshold is meant, by check; see `streaming.drift.Check`.
UNITS = {
    "row_rate": "factor",
    "partition_silent": "share",
    "label_mean": "relative",
    "missing_rate": "points",
    "unseen_rate": "points",
    "distribution": "index",
    "duplicates": "points",
    "calibration": "relative",
    "auc_fall": "points",
}
_MEANINGS = {
    "row_rate": "rows in a second of event time",
    "partition_silent": "share of each partition in the messages",
    "label_mean": "mean of each label",
    "missing_rate": "share of rows without a value, by feature",
    "unseen_rate": "share of ids that the reference did not see, by feature",
    "distribution": "population stability index, by feature, less what sampling noise makes",
    "duplicates": "share of rows that were seen before",
    "calibration": "mean prediction over mean label",
    "auc_fall": "AUC of rows before they are trained on",
}


@dataclass(frozen=True)
class Series:
    """A check of a subject in all windows in which it was made."""

    check: str
    subject: str
    points: Sequence[Point]

    @property
    def breaches(self) -> int:
        """Windows that breached it."""
        return sum(point.breached for point in self.points)

    @property
    def worst(self) -> Point:
        """The window in which it was the farthest off."""
        return max(self.points, key=lambda point: point.severity)


class DriftReport:
    """What a model directory tells of its drift monitor.

    Args:
        model_dir: of a run with `stream_config.drift`.
        windows: how many are drawn, the newest ones.

    Raises:
        UserError: there is nothing of a drift monitor.
    """

    def __init__(self, model_dir: Path, windows: int = 500) -> None:
        self._model_dir = model_dir
        self._records: RunRecords = read_records(model_dir)
        if not self._records.drift and not self._records.events:
            found = "no window of a drift monitor" if model_dir.is_dir() else "no such directory"
            raise UserError(
                f"{model_dir}: found {found} in {METRICS_FILE}, and no alarm in {ALARMS_FILE}; expected the"
                " model_dir of a training with stream_config { drift {} }, with a window of rows behind it."
            )
        self._windows = self._records.drift[-windows:]
        self._checks: dict[str, list[Series]] = {name: [] for name in UNITS}
        for series in _series(self._windows):
            self._checks.setdefault(series.check, []).append(series)
        for found_series in self._checks.values():
            found_series.sort(key=lambda series: (-series.worst.severity, series.subject))

    @property
    def state(self) -> tuple[str, str]:
        """How the run is: in words, and `good` or `bad`."""
        if stopped := self._records.undecided:
            return f"stopped, and nobody has decided yet: {_titles(stopped)}", "bad"
        if held := self._records.holding:
            return f"training goes on, nothing is published: {_titles(held)}", "bad"
        if self._windows and not self._windows[-1].get("ready"):
            return "gathering the reference", "good"
        return "no alarm holds", "good"

    # ---- for the terminal

    def tables(self) -> Iterable[Table]:
        """What is known, in short."""
        yield "Drift monitor", ("what", "value"), self._overview()
        rows = []
        for name, found in self._checks.items():
            if found:
                worst = found[0].worst
                breached = sum(series.breaches > 0 for series in found)
                rows.append(
                    (name, len(found), breached, found[0].subject or None, worst.value, worst.reference, worst.row)
                )
        columns = ("check", "subjects", "breached", "farthest off", "value", "reference", "to row")
        yield "Checks", columns, rows
        if self._records.alarms:
            yield "Alarms", _ALARM_COLUMNS, [_alarm_row(alarm) for alarm in self._records.alarms]

    def _overview(self) -> list[tuple[str, Any]]:
        records = self._records
        rows: list[tuple[str, Any]] = [("state", self.state[0]), ("windows", f"{len(records.drift):,}")]
        if len(self._windows) < len(records.drift):
            rows.append(("windows drawn", f"the newest {len(self._windows):,}"))
        if self._windows:
            last = self._windows[-1]
            rows.append(("rows", f"{_int(_window(last).get('to_row')):,}, up to step {_int(last.get('step')):,}"))
            times = [time for record in self._windows for time in _times(_window(record))]
            if times:
                rows.append(("event time", f"{when(min(times))} to {when(max(times))} (UTC)"))
        actions = [str(alarm.get("action")) for alarm in records.alarms]
        counts = ", ".join(f"{actions.count(action)} {action}" for action in dict.fromkeys(actions))
        rows.append(("alarms", counts or "none"))
        there = sum(version["state"] == "there" for version in records.published)
        if records.published or records.dropped:
            rows.append(("versions", f"{len(records.published):,} published, {there:,} of them there"))
            rows.append(("models not published", f"{len(records.dropped):,}"))
        return rows

    # ---- the page

    def html(self) -> str:
        """The page; it needs nothing from elsewhere, and is the same for the same records."""
        words, style = self.state
        parts: list[object] = [
            element("p", words, class_=f"state {style}"),
            table(("what", "value"), self._overview()[1:]),
        ]
        if self._windows:
            parts += [element("h2", "Windows"), self._timeline(), Html(_LEGEND)]
        parts += [element("h2", "Alarms"), *self._alarms()]
        if self._records.decisions:
            parts += [element("h2", "Decisions"), _decisions(self._records.decisions)]
        if self._records.published or self._records.dropped:
            parts += [element("h2", "Versions"), *self._versions()]
        parts.append(element("h2", "Checks"))
        parts += [part for name, found in self._checks.items() if found for part in _check(name, found)]
        return page(f"Drift report of {self._model_dir}", *parts)

    def _timeline(self) -> Html:
        spans = []
        for record in self._windows:
            window = _window(record)
            breached = any(len(one) > 5 and one[5] for one in _measurements(record))
            style = "breach" if breached else "ok" if record.get("ready") else "idle"
            spans.append(Span(_int(window.get("from_row")), _int(window.get("to_row")), style))
        marks = [
            Mark(
                _int(version.get("rows")),
                f"version {version.get('version')}, {version['state']}",
                "taken" if version["state"] == "taken back" else "mark",
            )
            for version in self._records.published
        ]
        return element("div", timeline(spans, marks), class_="card")

    def _alarms(self) -> Iterable[Html]:
        if not self._records.alarms:
            yield element("p", "None.", class_="note")
        ends = {
            (event.get("check"), event.get("subject")): event
            for event in self._records.events
            if event.get("kind") == "release"
        }
        for alarm in reversed(self._records.alarms):
            yield _alarm(alarm, ends.get((alarm.get("check"), alarm.get("subject"))))

    def _versions(self) -> Iterable[Html]:
        metrics = list(dict.fromkeys(name for version in self._records.published for name in _metrics(version)))
        shown = [name for name in metrics if not name.startswith("running_")]
        rows = [
            (
                version.get("version"), version["state"], version.get("step"), version.get("rows"),
                when(version.get("event_time")), version.get("time"), *(_metrics(version).get(name) for name in shown),
            )
            for version in reversed(self._records.published)
        ]  # fmt: skip
        yield table(("version", "", "step", "rows", "event time", "published", *shown), _as_text(rows))
        if self._records.dropped:
            dropped = [
                (record.get("checkpoint_step"), record.get("rows"), record.get("dropped"))
                for record in reversed(self._records.dropped)
            ]
            summary = element("summary", f"models that were not published: {len(dropped):,}")
            yield element("details", summary, table(("step", "rows", "why"), dropped))


def _series(windows: Sequence[Record]) -> Iterable[Series]:
    found: dict[tuple[str, str], list[Point]] = {}
    for record in windows:
        row = _int(_window(record).get("to_row"))
        for one in _measurements(record):
            check, subject, value, reference, threshold, breached = (*one, None, None, None, None, None, None)[:6]
            low, high = bounds(str(check), _float(reference), _float(threshold))
            point = Point(row, _float(value), _float(reference), low, high, bool(breached))
            found.setdefault((str(check), str(subject)), []).append(point)
    return [Series(*key, points) for key, points in found.items()]


def bounds(check: str, reference: float | None, threshold: float | None) -> tuple[float | None, float | None]:
    """The least and the greatest value that a threshold allows; None where there is no bound."""
    if reference is None or threshold is None:
        return None, None
    unit = UNITS.get(check, "points")
    if unit == "factor":
        return reference / (1.0 + threshold), reference * (1.0 + threshold)
    if unit == "share":
        return reference * threshold, None
    if unit == "relative":
        return reference * (1.0 - threshold), reference * (1.0 + threshold)
    if check == "auc_fall":
        return reference - threshold, None
    low = reference - threshold if check == "missing_rate" else 0.0  # of the others only a rise counts
    return low if low > 0 else None, reference + threshold


def _check(name: str, found: Sequence[Series]) -> Iterable[Html]:
    shown = max(_TOP_SUBJECTS, sum(series.breaches > 0 for series in found[: 4 * _TOP_SUBJECTS]))
    yield element("h3", name, element("span", f" {_MEANINGS.get(name, '')}", class_="soft"))
    yield element("div", *map(_card, found[:shown]), class_="charts")
    if rest := found[shown:]:
        summary = element("summary", f"{len(rest):,} more, which were closer to their reference")
        yield element("details", summary, element("div", *map(_card, rest), class_="charts"))


def _card(series: Series) -> Html:
    last = series.points[-1]
    breaches = element("span", f", {series.breaches} breached", class_="bad") if series.breaches else None
    words = f"last {number(last.value)}, reference {number(last.reference)}"
    note = element("p", words, breaches, class_="note", style="margin:0")
    return element("div", element("h3", series.subject or series.check), chart(series.points), note, class_="card")


_ALARM_COLUMNS = ("step", "rows", "action", "check", "subject", "value", "reference", "threshold", "restored step")


def _alarm_row(alarm: Record) -> tuple[Any, ...]:
    rows = [window.get(side) for window in _spans(alarm) for side in ("from_row", "to_row")]
    known = [row for row in rows if isinstance(row, int)]
    span = f"{min(known):,} to {max(known):,}" if known else None
    names = ("action", "check", "subject", "value", "reference", "threshold", "restored_step")
    return (alarm.get("step"), span, *(alarm.get(name) for name in names))


def _alarm(alarm: Record, release: Record | None) -> Html:
    action = str(alarm.get("action"))
    title = element("h3", element("span", action, class_="bad"), f" {title_of(alarm)}, step {alarm.get('step')}")
    step, rows, *_ = _alarm_row(alarm)
    facts: list[tuple[str, Any]] = [
        ("value", alarm.get("value")),
        ("reference", alarm.get("reference")),
        ("threshold", alarm.get("threshold")),
        ("standard errors", alarm.get("sigmas")),
        ("rows", rows),
        ("windows", len(_spans(alarm))),
        ("event time (UTC)", " to ".join(str(when(time)) for time in _times(alarm)) or None),
        ("raised", alarm.get("time")),
    ]
    if alarm.get("restored"):
        facts.append(("restored", alarm["restored"]))
    if release is not None and _int(release.get("step")) > _int(step):
        facts.append(("released at step", release.get("step")))
    parts: list[object] = [
        title,
        table(("what", "value"), [(name, number(value)) for name, value in facts if value is not None]),
    ]
    if contributions := alarm.get("contributions"):
        parts.append(element("p", "What contributed most:", class_="note"))
        parts.append(table(("value", "share", "share in the reference"), _as_text(contributions, 0)))
    offsets = alarm.get("offsets")
    if isinstance(offsets, Mapping) and offsets:
        lines = [(partition, *span) for partition, span in offsets.items() if isinstance(span, list)]
        summary = element("summary", "Offsets of the messages")
        parts.append(element("details", summary, table(("partition", "from", "to"), lines)))
    return element("div", *parts, class_="card alarm")


def _decisions(decisions: Sequence[Record]) -> Html:
    rows = [
        (
            record.get("time"),
            record.get("decision"),
            record.get("step"),
            ", ".join(map(str, record.get("alarms") or ())),
        )
        for record in reversed(decisions)
    ]
    return table(("when", "decision", "from step", "on"), rows)


def _as_text(rows: Iterable[Sequence[Any]], *places: int) -> list[Sequence[Any]]:
    """Rows in which ids, numbers among them, are shown as they are; by default in column 0."""
    return [[str(cell) if at in (places or (0,)) else cell for at, cell in enumerate(row)] for row in rows]


def _window(record: Record) -> Mapping[str, Any]:
    window = record.get("window")
    return window if isinstance(window, Mapping) else {}


def _measurements(record: Record) -> list[list[Any]]:
    return [one for one in record.get("measurements") or () if isinstance(one, list)]


def _spans(alarm: Record) -> list[Mapping[str, Any]]:
    return [window for window in alarm.get("windows") or () if isinstance(window, Mapping)]


def _times(record: Mapping[str, Any]) -> list[float]:
    return [time for time in record.get("event_time") or () if isinstance(time, int | float)]


def _metrics(version: Record) -> Mapping[str, Any]:
    metrics = version.get("metrics")
    return metrics if isinstance(metrics, Mapping) else {}


def _titles(alarms: Sequence[Record]) -> str:
    return ", ".join(dict.fromkeys(map(title_of, alarms)))


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


_LEGEND = join(
    [
        Html('<p class="note">Each box is a window: '),
        element("span", "green", class_="good"),
        " without a breach, ",
        element("span", "red", class_="bad"),
        " with one, grey while the reference was gathered. Lines are published versions, dashed ones were taken back."
        " In the charts below, the dashed line is the reference and the brown ones are the threshold; a red dot is a"
        " breach: past the threshold, and more than chance.",
        Html("</p>"),
    ]
)
