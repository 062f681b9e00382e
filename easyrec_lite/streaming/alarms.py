"""alarms.jsonl: what the drift monitor found, and what people decided."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyrec_lite.checkpoints import Files, Journal

ALARMS_FILE = "alarms.jsonl"
ALARM, RELEASE, DECISION = "alarm", "release", "decision"
ACCEPT, SKIP, REPLAY, REBASE = "accept", "skip", "replay", "rebase"

Key = tuple[str, str]  # check, subject
Record = dict[str, Any]

# What a second finding of the same windows need not share with the first.
_OF_THE_MOMENT = ("id", "time", "restored", "restored_step")


@dataclass(frozen=True)
class Stop:
    """A STOP on which nobody has decided yet.

    Attributes:
        alarms: the records of its span, those with the other actions too.
        step: steps done at the end of the alarmed windows.
        from_row: the first row of the alarmed windows.
        to_row: the first row behind them.
        position: the next row to read behind them, JSON.
        restored_step: the step of the checkpoint from before them, or of the oldest, if none is from before.
    """

    alarms: tuple[Record, ...]
    step: int
    from_row: int
    to_row: int
    position: str
    restored_step: int

    @property
    def ids(self) -> list[str]:
        """The ids of the alarms."""
        return [record["id"] for record in self.alarms]

    @property
    def keys(self) -> list[Key]:
        """What alarmed."""
        return sorted({key_of(record) for record in self.alarms})

    def __str__(self) -> str:
        causes = [describe(record) for record in self.alarms if record["action"] == "STOP"]
        return f"{'; '.join(causes)} (step {self.step:,}, rows {self.from_row:,} to {self.to_row:,})"


@dataclass(frozen=True)
class Acceptance:
    """What is normal from a row on, by somebody's decision."""

    row: int
    keys: frozenset[Key]


class AlarmLog:
    """The alarms of a run and the decisions on them; appended to and synced, never cut back.

    One process writes. What a run that goes on finds a second time is written once.

    Args:
        path: of alarms.jsonl.
        files: file operations; tests hand in their own.
    """

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self._journal = Journal(path, files=files)
        self._records = list(self._journal.records())

    @property
    def records(self) -> Sequence[Record]:
        """All records, the oldest first."""
        return self._records

    def add(self, records: Iterable[Record]) -> list[Record]:
        """Writes the alarms and releases that are not there yet; gives these back, with an `id` and a `time`.

        A STOP is always new: a run comes to the same one again only if somebody sent it there. And so is what is found
        behind a replay, a rebase or a skip: what was written before was taken back with its rows.
        """
        added = []
        moves = (place for place, known in enumerate(self._records) if known.get("decision") in (SKIP, REPLAY, REBASE))
        begin = max(moves, default=-1) + 1
        for record in json.loads(json.dumps(list(records))):  # as they will be read
            written = self._records[begin:]
            if record.get("action") != "STOP" and any(_content(record) == _content(known) for known in written):
                continue
            ids = {known.get("id") for known in self._records}
            name = "-".join(str(record[part]) for part in ("step", "check", "subject"))
            if record["kind"] == RELEASE:
                name += "-release"
            names = (name if number == 1 else f"{name}#{number}" for number in range(1, len(ids) + 2))
            record = {"kind": record["kind"], "id": next(n for n in names if n not in ids), "time": _now(), **record}
            self._journal.append(record)
            self._records.append(record)
            added.append(record)
        self._journal.sync()
        return added

    def decide(self, decision: str, step: int, alarms: Collection[str] = (), **facts: Any) -> None:
        """Writes down what somebody decided.

        Args:
            decision: accept, skip, replay or rebase.
            step: of the checkpoint from which training goes on.
            alarms: the ids of those that it is about.
            facts: what else there is to say.
        """
        record = {"kind": DECISION, "decision": decision, "alarms": list(alarms), "time": _now(), "step": step, **facts}
        self._journal.append(record, sync=True)
        self._records.append(record)

    def stop(self) -> Stop | None:
        """The STOP that waits for a decision, if one does."""
        open_alarms: list[Record] = []
        for record in self._records:
            if record["kind"] == ALARM:
                open_alarms.append(record)
            elif record["kind"] == DECISION:
                open_alarms = []
        stops = [record for record in open_alarms if record["action"] == "STOP"]
        if not stops:
            return None
        restored_step = min(record["restored_step"] for record in stops)
        return Stop(
            tuple(record for record in open_alarms if record["action"] == "STOP" or record["step"] > restored_step),
            step=stops[-1]["step"],
            from_row=min(record["windows"][0]["from_row"] for record in stops),
            to_row=stops[-1]["windows"][-1]["to_row"],
            position=stops[-1]["position"],
            restored_step=restored_step,
        )

    def acceptances(self) -> list[Acceptance]:
        """What was accepted, of the rows that the run still has behind or before it."""
        found: list[Acceptance] = []
        for record in self._records:
            if record.get("decision") == ACCEPT:
                found.append(Acceptance(record["from_row"], frozenset((c, s) for c, s in record["keys"])))
            elif record.get("decision") in (SKIP, REBASE):  # the rows that followed never come
                found = [accepted for accepted in found if accepted.row <= record["rows"]]
        return found

    def last(self, keys: Collection[Key]) -> list[Record]:
        """The last alarm of each of these."""
        alarms = {key_of(record): record for record in self._records if record["kind"] == ALARM}
        return [alarms[key] for key in keys if key in alarms]

    def close(self) -> None:
        """Closes the file."""
        self._journal.close()


def key_of(record: Mapping[str, Any]) -> Key:
    """Check and subject of an alarm."""
    return record["check"], record["subject"]


def describe(record: Mapping[str, Any]) -> str:
    """An alarm in a few words."""
    subject = f" of {record['subject']}" if record["subject"] else ""
    return (
        f"{record['check']}{subject} {_number(record['value'])}, reference {_number(record['reference'])},"
        f" threshold {_number(record['threshold'])}"
    )


def choices(model_dir: Path, restored_step: int, imports: Collection[str] = ()) -> str:
    """The commands by which a person decides on a STOP, one a line."""
    words = ["python", "-m", "easyrec_lite.train", "--model_dir", str(model_dir)]
    words += [word for module in imports for word in ("--import", module)]
    command = shlex.join(words)
    lines = [
        (f"{command} --on_alarm accept", "train on these rows after all: they are the new normal"),
        (f"{command} --on_alarm skip", "jump over them"),
        (f"{command} --replay_from {restored_step}", "train on them again as they are, or go back further:"),
    ]
    width = max(len(command) for command, _ in lines)
    listing = shlex.join(["python", "-m", "easyrec_lite.checkpoints", str(model_dir)])
    text = [f"  {command.ljust(width)}  # {meaning}" for command, meaning in lines]
    return "\n".join([*text, f"  {listing.ljust(width)}  # lists what there is to go back to"])


def _content(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _OF_THE_MOMENT}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
