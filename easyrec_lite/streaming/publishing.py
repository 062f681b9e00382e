"""The publishing gate: the model is exported while it learns, if it is good and no alarm holds."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from easyrec_lite.checkpoints import Checkpoint, CheckpointError, Files, Journal, checkpoint_paths
from easyrec_lite.errors import UserError
from easyrec_lite.protos import stream_pb2
from easyrec_lite.serving import (
    ParityError,
    description,
    exported_step,
    keep_newest,
    next_version,
    remove_leftovers,
    versions,
)
from easyrec_lite.streaming.conditions import Failure, failure
from easyrec_lite.streaming.prequential import KIND as PREQUENTIAL
from easyrec_lite.streaming.prequential import Recorder
from easyrec_lite.terminal import warn
from easyrec_lite.training import Callback, Until

if TYPE_CHECKING:
    from easyrec_lite.training import StepsResult, Trainer

KIND = "publish"
PUBLISHED_FILE = "published.jsonl"
PUBLISHED_DIR = "published"

_WAITING = 3  # candidates that wait at a time; each keeps a checkpoint on the disk
_RESTORABLE = 2  # versions whose checkpoints stay: the one that is served, and the one before


class Gate(Protocol):
    """Who says which rows were looked at and found sound, such as a drift monitor."""

    @property
    def cleared_rows(self) -> int:
        """All rows before this one, of those trained since the start of the run, are judged and in no breach."""

    @property
    def holding(self) -> bool:
        """Whether an alarm holds: nothing may be published."""


class ModelWriter(Protocol):
    """What writes a version; see `serving.export_model`."""

    def __call__(
        self, checkpoint: Checkpoint, *, version: int | None = None, facts: Mapping[str, Any] | None = None
    ) -> Path:
        """Exports a checkpoint; returns the folder of the new version.

        Raises:
            ParityError: it doesn't predict what the trainer predicts; then there is no such version.
        """


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that may be published.

    Attributes:
        step: its step.
        rows: rows trained until then.
        event_time: the newest of them, seconds since 1970; None if unknown.
        metrics: of the last prequential window that ended by then.
    """

    step: int
    rows: int
    event_time: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Publisher(Callback):
    """Exports the model to `<directory>/<version>` again and again, while it is good.

    A publication is due at each multiple of `every_rows` since the start of the run, of `every_seconds` since then, and
    of `every_event_minutes` since 1970. The model at that moment becomes a candidate if no alarm holds and all
    conditions hold for the last prequential window that ended by then: those rows were scored by the weights that led
    to it, and what comes later, which is for the gate to judge, can't make a bad one good. Else it is dropped.

    A candidate is a checkpoint, which is written for it. It waits until the gate has cleared all its rows, and of those
    that are cleared the newest is published; the others are not needed any more. When an alarm begins to hold, or the
    run jumps in the data, all that wait are dropped. So no model is published that a row of an alarmed span was the
    last to change. At most three wait: the oldest and the two newest.

    A version that does not predict what the trainer predicts is not written, and its candidate is dropped.

    What was published is in `published.jsonl` and in the version's description; it is not published a second time, also
    not by a run that was killed and makes the same candidates again. Recorders get, for a version and for a candidate
    that is dropped,

        {"rows": 51200, "checkpoint_step": 50, "version": 1790000000, "auc": 0.74}
        {"rows": 51200, "checkpoint_step": 50, "dropped": "auc 0.61 is not at least 0.7", "auc": 0.61}

    with the metrics of the conditions.

    Put it behind prequential evaluation and the gate in the list of callbacks, and make it one of the recorders of
    prequential evaluation.

    Args:
        config: when, and under which conditions; see `check`.
        directory: parent of the versions.
        write: exports to there.
        log: the path of `published.jsonl`.
        gate: says which rows are sound; None if nobody looks at them.
        recorders: told what is published, and what is not.
        clock: seconds since 1970.
        files: file operations of the log.
        tell: shows a line to the user.
    """

    def __init__(
        self,
        config: stream_pb2.PublishConfig,
        directory: Path,
        write: ModelWriter,
        log: Path,
        gate: Gate | None = None,
        recorders: Sequence[Recorder] = (),
        clock: Callable[[], float] = time.time,
        files: Files | None = None,
        tell: Callable[[str], None] = warn,
    ) -> None:
        self._config = config
        self._directory = directory
        self._write = write
        self._log = Journal(log, key="version", files=files)
        self._gate = gate
        self._recorders = tuple(recorders)
        self._clock = clock
        self._show = tell
        self._span = round(config.every_event_minutes * 60.0, 3)
        self._published = list(self._log.records())
        self._waiting: list[Candidate] = []
        self._unsaved = False  # the newest of them has no checkpoint yet
        self._taken = -1  # step of the last due moment
        self._metrics: dict[str, float] = {}
        self._started: float | None = None
        self._before: list[float] = []  # the periods that training was in; empty until it starts

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Takes the metrics of a prequential window."""
        if kind == PREQUENTIAL:
            self._metrics = {name: value for name, value in values.items() if isinstance(value, float)}

    def until(self, trainer: Trainer) -> Until:
        """See Callback."""
        until = Until()
        if every := self._config.every_rows:
            until = until._replace(rows=every - trainer.rows % every)
        if span := self._span:
            known = math.isfinite(trainer.event_time)
            end = {"event_time": (trainer.event_time // span + 1) * span} if known else {"steps": 1}
            until = until._replace(**end)
        return until

    def on_move(self, trainer: Trainer) -> None:
        """Drops what waits for the gate: the rows behind it, with which its last ones are judged, never come."""
        if self._gate is not None:
            self._drop_all(trainer, "training goes on elsewhere, before its rows were cleared")

    def on_start(self, trainer: Trainer) -> None:
        """See Callback. What a kill prevented is made up for."""
        remove_leftovers(self._directory)
        if self._started is None:
            self._started = self._clock()
        self._before = self._periods(trainer)
        self._publish_cleared(trainer, starting=True)

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """See Callback."""
        if self._gate is not None and self._gate.holding:
            self._drop_all(trainer, "an alarm holds")
        before, self._before = self._before, self._periods(trainer)
        is_due = any(now > then for now, then in zip(self._before, before, strict=True))
        if is_due and trainer.step and trainer.step != self._taken:
            self._take(trainer)
        self._publish_cleared(trainer)

    def wants_checkpoint(self) -> bool:
        """See Callback."""
        return self._unsaved

    def on_checkpoint(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """See Callback."""
        self._unsaved = False
        if self._before:
            self._publish_cleared(trainer)

    def close(self) -> None:
        """See Callback."""
        self._log.close()

    def protected_steps(self) -> Collection[int]:
        """See Callback. Those of the newest versions too, so that the trainer can go back with them."""
        there = {path.name for path in versions(self._directory)}
        served = [record["step"] for record in self._published if str(record["version"]) in there]
        return {candidate.step for candidate in self._waiting} | set(served[-_RESTORABLE:])

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See Callback."""
        clock = {"started": self._started} if self._config.every_seconds else {}
        waiting = [asdict(candidate) for candidate in self._waiting]
        return {"waiting": waiting, "taken": self._taken, "metrics": self._metrics, **clock}, {}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """See Callback."""
        self._waiting = [Candidate(**values) for values in state["waiting"]]
        self._taken, self._metrics = state["taken"], dict(state["metrics"])
        self._started = state.get("started")

    def _periods(self, trainer: Trainer) -> list[float]:
        """The number of the period that training is in, by rows, event time and the clock."""
        assert self._started is not None, "set when the run starts"
        lengths = (self._config.every_rows, self._span, self._config.every_seconds)
        now = trainer.rows, trainer.event_time, self._clock() - self._started
        return [
            value // length if length and math.isfinite(value) else math.nan
            for value, length in zip(now, lengths, strict=True)
        ]

    def _take(self, trainer: Trainer) -> None:
        self._taken = trainer.step
        event_time = trainer.event_time if math.isfinite(trainer.event_time) else None
        metrics = {name: value for name, value in self._metrics.items() if math.isfinite(value)}
        candidate = Candidate(trainer.step, trainer.rows, event_time, metrics)
        if self._gate is not None and self._gate.holding:
            self._drop(trainer, candidate, "an alarm holds")
        elif (failed := self._failure()) is not None:
            self._drop(trainer, candidate, str(failed))
        else:
            self._waiting.append(candidate)
            if len(self._waiting) > _WAITING:
                del self._waiting[1]  # the oldest is the first to be cleared, however slow the gate is
            self._unsaved = trainer.checkpoint is None or trainer.checkpoint.step != trainer.step

    def _failure(self) -> Failure | None:
        served = [_published_metrics(version) for version in reversed(versions(self._directory))]
        return failure(self._config.conditions, self._metrics, served)

    def _publish_cleared(self, trainer: Trainer, *, starting: bool = False) -> None:
        if self._gate is not None and self._gate.holding:
            return
        rows = math.inf if self._gate is None else self._gate.cleared_rows
        cleared = [candidate for candidate in self._waiting if candidate.rows <= rows]
        is_saved = not self._unsaved or len(cleared) < len(self._waiting)  # else its checkpoint is about to be written
        if cleared and is_saved:
            del self._waiting[: len(cleared)]
            self._publish(trainer, cleared[-1], starting)

    def _publish(self, trainer: Trainer, candidate: Candidate, starting: bool) -> None:
        try:
            checkpoint = Checkpoint(checkpoint_paths(trainer.model_dir).get(candidate.step, Path("nowhere")))
        except CheckpointError as error:
            self._drop(trainer, candidate, f"its checkpoint is not to be read: {error}")
            return
        logged = next((r for r in self._published if r.get("fingerprint") == checkpoint.fingerprint), None)
        try:
            record = logged or self._unlogged(checkpoint) or self._export(checkpoint, candidate)
        except ParityError as error:
            self._drop(trainer, candidate, str(error))
            return
        # Where a run goes on from the very checkpoint that was published, what it told was kept.
        if logged is None or not starting:
            self._tell(trainer, candidate, {"version": record["version"]})

    def _export(self, checkpoint: Checkpoint, candidate: Candidate) -> dict[str, Any]:
        numbers = [next_version(self._directory), *(record["version"] + 1 for record in self._published)]
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        facts = {
            "version": max(numbers),
            **asdict(candidate),
            "position": checkpoint.state.get("position"),
            "fingerprint": checkpoint.fingerprint,
            "time": now.isoformat(timespec="seconds"),
        }
        path = self._write(checkpoint, version=facts["version"], facts={"published": facts})
        record = self._note(path, facts)
        keep_newest(self._directory, self._config.keep)
        return record

    def _unlogged(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """The version of a checkpoint if a kill came between it and its record."""
        for path in versions(self._directory):
            facts = _facts(path)
            if facts.get("fingerprint") == checkpoint.fingerprint:
                return self._note(path, facts)
        return None

    def _note(self, path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        model_dir = self._log.path.parent
        inside = path.is_relative_to(model_dir)  # a model_dir may be moved
        record = {**facts, "path": str(path.relative_to(model_dir) if inside else path.absolute())}
        self._log.append(record, sync=True)
        self._published.append(record)
        return record

    def _drop_all(self, trainer: Trainer, reason: str) -> None:
        dropped, self._waiting = self._waiting, []
        for candidate in dropped:
            self._drop(trainer, candidate, reason)

    def _drop(self, trainer: Trainer, candidate: Candidate, reason: str) -> None:
        self._show(f"the model of step {candidate.step:,}, {candidate.rows:,} rows, is not published: {reason}")
        self._tell(trainer, candidate, {"dropped": reason})

    def _tell(self, trainer: Trainer, candidate: Candidate, values: Mapping[str, Any]) -> None:
        asked = dict.fromkeys(condition.metric for condition in self._config.conditions)
        metrics = {name: candidate.metrics[name] for name in asked if name in candidate.metrics}
        told = {"rows": candidate.rows, "checkpoint_step": candidate.step, **values, **metrics}
        for recorder in self._recorders:
            recorder.record(trainer.step, KIND, told)


@dataclass(frozen=True)
class RolledBack:
    """What `roll_back` did.

    Attributes:
        taken: the folder of the version taken back, under its new name.
        step: the training step of it.
        now: the newest version that is left.
        now_step: the training step of that one.
    """

    taken: Path
    step: int
    now: Path
    now_step: int


def roll_back(directory: Path, files: Files | None = None) -> RolledBack:
    """Takes the newest version back: its folder is renamed to `<version>.taken_back`.

    TensorFlow Serving serves the highest number that it finds, so it goes back to the version before. No later version
    gets the number again. The folder stays; who is sure may remove it, or give it back its name.

    Raises:
        UserError: there is no version, or none to go back to.
    """
    files = files or Files()
    found = versions(directory)
    if len(found) < 2:
        there = f"only version {found[0].name}" if found else "no version"
        raise UserError(
            f"{directory}: found {there}; expected two or more, for a server needs one to go back to. Publish another"
            " first (python -m easyrec_lite.export --checkpoint_path CHECKPOINT --export_dir"
            f" {directory}), or look for the versions elsewhere: stream_config.publish.dir."
        )
    before, newest = found[-2:]
    steps = exported_step(newest), exported_step(before)  # unreadable ones fail before anything is done
    taken = newest.with_name(f"{newest.name}.taken_back")
    files.rename(newest, taken)
    files.sync_dir(directory)
    return RolledBack(taken, steps[0], before, steps[1])


def published_dir(config: stream_pb2.PublishConfig, model_dir: Path) -> Path:
    """The parent of the versions."""
    return Path(config.dir) if config.dir else model_dir / PUBLISHED_DIR


def _facts(version: Path) -> dict[str, Any]:
    """What a version says of its publication; nothing if something else wrote it."""
    try:
        facts: dict[str, Any] = description(version).get("published", {})
    except UserError:
        return {}
    return facts


def _published_metrics(version: Path) -> Mapping[str, float]:
    metrics: Mapping[str, float] = _facts(version).get("metrics", {})
    return metrics
