"""What a training run wrote down of itself, for people: read at once, without TensorFlow, while it runs or after."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyrec_lite.terminal import warn

METRICS_FILE = "metrics.jsonl"
ALARMS_FILE = "alarms.jsonl"
PUBLISHED_FILE = "published.jsonl"

Record = dict[str, Any]


@dataclass(frozen=True)
class RunRecords:
    """The records of a run, each in the order in which they were written.

    Attributes:
        windows: of prequential evaluation, from metrics.jsonl, which is cut back when a run goes back.
        drift: windows of the drift monitor, from there.
        dropped: models that were not published, from there.
        events: alarms, releases of a HOLD and decisions, from alarms.jsonl, which is never cut back.
        published: versions, from published.jsonl, each with its `state`: "there", "taken back" or "removed".
    """

    windows: Sequence[Record]
    drift: Sequence[Record]
    dropped: Sequence[Record]
    events: Sequence[Record]
    published: Sequence[Record]

    @property
    def alarms(self) -> list[Record]:
        """The alarms."""
        return _of_kind("alarm", self.events)

    @property
    def decisions(self) -> list[Record]:
        """What people decided after a STOP."""
        return _of_kind("decision", self.events)

    @property
    def undecided(self) -> list[Record]:
        """The alarms that stopped the run, and on which nobody has decided yet."""
        last = max((place for place, event in enumerate(self.events) if event.get("kind") == "decision"), default=-1)
        return [alarm for alarm in _of_kind("alarm", self.events[last + 1 :]) if alarm.get("action") == "STOP"]

    @property
    def holding(self) -> list[Record]:
        """The alarms that hold: not released, not accepted, and not taken back with their rows."""
        held: dict[str, Record] = {}
        for event in self.events:
            if event.get("kind") == "alarm" and event.get("action") == "HOLD":
                held[title_of(event)] = event
            elif event.get("kind") == "release":
                held.pop(title_of(event), None)
            elif event.get("kind") == "decision":
                step = event.get("step", 0)
                accepted = {tuple(key) for key in event.get("keys", ())} if event.get("decision") == "accept" else set()
                held = {
                    title: alarm
                    for title, alarm in held.items()
                    if alarm.get("step", 0) <= step and (alarm.get("check"), alarm.get("subject")) not in accepted
                }
        return list(held.values())


def read_records(model_dir: Path) -> RunRecords:
    """All that a run recorded; files that are not there are empty, lines that can't be read are left out."""
    metrics = list(_lines(model_dir / METRICS_FILE))
    return RunRecords(
        windows=_of_kind("prequential", metrics),
        drift=_of_kind("drift", metrics),
        dropped=[record for record in _of_kind("publish", metrics) if "dropped" in record],
        events=list(_lines(model_dir / ALARMS_FILE)),
        published=[
            record | {"state": _state(model_dir / str(record.get("path")))}
            for record in _lines(model_dir / PUBLISHED_FILE)
        ],
    )


def _of_kind(kind: str, records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.get("kind") == kind]


def _lines(path: Path) -> Iterator[Record]:
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.split("\n")[:-1]  # what stands behind the last line end is being written, or was torn by a kill
    unreadable = 0
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield record
        else:
            unreadable += 1
    if unreadable:
        warn(f"{path}: found {unreadable} of {len(lines)} lines that are no JSON objects; they are left out")


def _state(path: Path) -> str:
    if path.is_dir():
        return "there"
    return "taken back" if path.with_name(f"{path.name}.taken_back").is_dir() else "removed"


def when(seconds: object) -> str | None:
    """A time since 1970 for people, in UTC, or the number if it is none; None if unknown."""
    if not isinstance(seconds, int | float):
        return None
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f}"


def seconds_of(time: object) -> float:
    """Whole seconds since 1970 of a time in ISO 8601; 0 if it is none."""
    try:
        parsed = datetime.datetime.fromisoformat(str(time))
    except ValueError:
        return 0.0
    return float(int(parsed.astimezone(datetime.UTC).timestamp()))


def title_of(alarm: Mapping[str, Any]) -> str:
    """What an alarm is about, such as `label_mean clk`."""
    return " ".join(str(alarm.get(name)) for name in ("check", "subject") if alarm.get(name))
