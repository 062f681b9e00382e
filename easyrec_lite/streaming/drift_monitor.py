"""The drift monitor in the loop: windows, verdicts, alarms, and what they make the run do."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from easyrec_lite.checkpoints import checkpoint_paths
from easyrec_lite.errors import DriftAlarm
from easyrec_lite.inputs.kafka import Place, StreamPosition
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming.alarms import RELEASE, AlarmLog, Record, choices, describe
from easyrec_lite.streaming.drift import Detector, WatchedBatch, WindowFacts
from easyrec_lite.streaming.notices import Notifier
from easyrec_lite.streaming.prequential import KIND as PREQUENTIAL
from easyrec_lite.streaming.prequential import Recorder
from easyrec_lite.streaming.scores import below
from easyrec_lite.streaming.verdicts import Judge, Window
from easyrec_lite.terminal import warn
from easyrec_lite.training import Callback, ObservedBatch, TrainedBatches, Until, listening_thread

if TYPE_CHECKING:
    from easyrec_lite.training import StepsResult, Trainer

KIND = "drift"


class HasLag(Protocol):
    """A stream, as far as the monitor asks it."""

    def lag(self) -> Mapping[int, int]:
        """Messages not read yet, by partition."""


class DriftMonitor(Callback):
    """Looks at the rows that are trained, window by window, and raises alarms.

    A window of `window_rows` ends with the batch that fills it; a window of event time ends before the first batch
    whose newest row is past a multiple of `window_event_minutes` since 1970. At its end, before anything else happens,
    the detector measures it, and each check that was breached in `patience` windows in a row alarms:

    * WARN: it is told.
    * HOLD: `holding` is true until the check was not breached in `release_windows` windows in a row.
    * STOP: `DriftAlarm` leaves the training. The newest checkpoint from before the breached windows is always there.

    Alarms go to `alarms.jsonl`, to the terminal, and to who else is to be notified; recorders get each window:

        {"rows": 12288, "window": {"from_row": 0, "to_row": 12288, "event_time": [1.7e9, 1.7e9]}, "ready": true,
         "measurements": [["label_mean", "click", 0.048, 0.05, 0.1, false], ...]}

    with check, subject, value, reference, threshold, breached; `ready` says whether there was a reference to compare
    with. The detector's work runs beside the steps.

    Put it behind `batches` and prequential evaluation in the list of callbacks; the latter has it among its recorders.

    Args:
        config: how long windows are.
        detector: measures.
        judge: decides.
        batches: tells of the batches that are trained.
        log: of the alarms.
        model_dir: where the checkpoints are.
        source: the stream; None for files.
        recorders: told of each window.
        notifier: hands alarms on.
        tell: shows a line to the user.
        imports: modules of the user's that the command needs.

    Attributes:
        alarms: how many this process gave, by check and action.
        breached: checks breached in the last window.
    """

    def __init__(
        self,
        config: stream_pb2.DriftConfig,
        detector: Detector,
        judge: Judge,
        batches: TrainedBatches,
        log: AlarmLog,
        model_dir: Path,
        *,
        source: HasLag | None = None,
        recorders: Sequence[Recorder] = (),
        notifier: Notifier | None = None,
        tell: Callable[[str], None] = warn,
        imports: Collection[str] = (),
    ) -> None:
        self._window_rows = config.window_rows
        self._window_seconds = round(config.window_event_minutes * 60.0, 3)  # 0: windows are of rows
        self._detector, self._judge, self._log, self._model_dir = detector, judge, log, model_dir
        self._source, self._recorders, self._notifier = source, tuple(recorders), notifier or Notifier()
        self._tell, self._imports = tell, tuple(imports)
        self._wants_start = False
        self._worker = listening_thread("drift")
        self._pending: list[Future[None]] = []
        self._next: list[ObservedBatch] = []  # of the window after this one
        self._scores: list[tuple[int, dict[str, float]]] = []  # prequential windows: step, metrics
        self._rows = self._step = 0
        self._position: str | None = None
        self._begin()
        self.alarms: Mapping[tuple[str, str], int] = {}
        self.breached = 0
        batches.listen(self._take)

    def _begin(self) -> None:
        """Begins a window."""
        self._from_row, self._from_step, self._start = self._rows, self._step, self._position
        self._times: list[float] = []  # the least and the greatest event time
        self._end = -math.inf  # in event time; unknown until the first batch that has one

    # ---- what others ask

    @property
    def cleared_rows(self) -> int:
        """All rows before this one, of those trained since the start of the run, are judged and in no breach."""
        return self._judge.cleared_row(self._from_row)

    @property
    def holding(self) -> bool:
        """Whether nothing may be published."""
        return self._judge.holding

    def wants_checkpoint(self) -> bool:
        """See Callback. Without any, there would be nothing to go back to from the first windows."""
        return self._wants_start

    def protected_steps(self) -> Collection[int]:
        """See Callback. The newest one from before all rows for which the training may yet be stopped, or the oldest.

        And, while the sound rows before a STOP are trained to skip it, the one that a kill has them begin at anew.
        """
        restorable = self._restorable() if self._judge.can_stop else None
        stop = self._log.stop()
        steps = (restorable, None if stop is None else stop.restored_step)
        return tuple(step for step in steps if step is not None)

    def _restorable(self) -> int | None:
        """The newest one from before those rows; else the oldest there is; None before the first one."""
        saved, sound = checkpoint_paths(self._model_dir), self._judge.sound_step(self._from_step)
        return max((step for step in saved if step <= sound), default=min(saved, default=None))

    # ---- batches

    def until(self, trainer: Trainer) -> Until:
        """See Callback."""
        if not self._window_seconds:
            return Until(rows=max(1, self._from_row + self._window_rows - self._rows))
        # The first batch says when the events happen.
        return Until(event_time=self._end) if math.isfinite(self._end) else Until(steps=1)

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Takes the metrics of a prequential window."""
        if kind == PREQUENTIAL:
            metrics = {name: value for name, value in values.items() if isinstance(value, float)}
            self._scores.append((step, {n: value for n, value in metrics.items() if not n.startswith("running_")}))

    def _take(self, batch: ObservedBatch) -> None:
        """A batch is about to be trained; called in the thread of the graph."""
        if self._next or self._ends_before(batch) or self._is_full():
            if not self._next and not self._is_full():
                self._measure_rows()
            self._next.append(batch)
            return
        known = math.isfinite(batch.newest)
        times = [batch.newest] if known else []
        if batch.times is not None:
            seen = batch.times[batch.times > 0]
            times = [float(seen.min()), float(seen.max())] if seen.size else []
        if times:
            all_times = [*self._times, *times]
            self._times = [min(all_times), max(all_times)]
        if self._window_seconds and known and not math.isfinite(self._end):
            self._end = (batch.newest // self._window_seconds + 1.0) * self._window_seconds
        self._rows += batch.rows
        self._step += 1
        self._position = batch.position
        watched = WatchedBatch(
            rows=batch.rows,
            encoded=batch.encoded,
            labels=batch.labels,
            missing=batch.missing,
            event_time=(min(times), max(times)) if times else None,
            times=batch.times,
            hashed=batch.hashed,
        )
        self._pending.append(self._worker.submit(self._detector.update, watched))
        if self._is_full():
            self._measure_rows()

    def _measure_rows(self) -> None:
        """Has the window measured while its last batch, or the one after it, is trained: the loop must not wait."""
        self._pending.append(self._worker.submit(self._detector.measure_rows))

    def _ends_before(self, batch: ObservedBatch) -> bool:
        return bool(self._window_seconds) and math.isfinite(self._end) and batch.newest >= self._end

    def _is_full(self) -> bool:
        return not self._window_seconds and self._rows - self._from_row >= self._window_rows

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """Judges the windows that ended.

        Raises:
            DriftAlarm: a check with the action STOP alarms.
        """
        while self._next or self._is_full():
            self._end_window()
            batches, self._next = self._next, []
            for batch in batches:
                self._take(batch)

    def _wait(self) -> None:
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    # ---- windows

    def _end_window(self) -> None:
        self._wait()
        window = self._window()
        measurements = self._worker.submit(self._detector.end_window, self._facts(window)).result()
        found = self._judge.judge(measurements, window)
        self.breached = sum(measurement.breached for measurement in measurements)
        values = {
            "rows": window.to_row - window.from_row,
            "window": window.to_json(),
            "ready": self._detector.ready,
            "measurements": [
                [one.check, one.subject, one.value, one.reference, one.threshold, one.breached] for one in measurements
            ],
        }
        for recorder in self._recorders:
            recorder.record(window.to_step, KIND, values)
        self._alarm(found)
        self._begin()
        self._accept()

    def _window(self) -> Window:
        return Window(
            from_row=self._from_row,
            to_row=self._rows,
            from_step=self._from_step,
            to_step=self._step,
            event_time=(self._times[0], self._times[1]) if self._times else None,
            start=self._offsets(self._start),
            end=self._offsets(self._position),
            position=self._position,
        )

    def _facts(self, window: Window) -> WindowFacts:
        # A window of event time is ended by the batch after it; and so is one of prequential evaluation.
        ended_by = self._step + bool(self._next)
        scores = [metrics for step, metrics in self._scores if step <= ended_by]
        self._scores = [(step, metrics) for step, metrics in self._scores if step > ended_by]
        return WindowFacts(
            from_row=window.from_row,
            to_row=window.to_row,
            from_step=window.from_step,
            to_step=window.to_step,
            event_time=window.event_time,
            messages=window.messages,
            waiting=self._waiting(),
            metrics=scores[-1] if scores else {},
        )

    def _waiting(self) -> frozenset[int]:
        """Partitions whose silence means nothing."""
        if self._source is None or self._position is None:
            return frozenset()
        position = StreamPosition.from_json(self._position)
        if position.ends is None:
            return frozenset(number for number, behind in self._source.lag().items() if behind > 0)
        places = position.partitions
        return frozenset(n for n, end in position.ends.items() if places.get(n, Place(0)).offset >= end)

    def _offsets(self, position: str | None) -> dict[int, int]:
        if self._source is None or position is None:
            return {}
        places = StreamPosition.from_json(position).partitions
        return {number: place.offset for number, place in sorted(places.items())}

    # ---- alarms

    def _alarm(self, found: list[Record]) -> None:
        """Writes alarms down, hands them on, and raises if one of them is a STOP."""
        stops = [record for record in found if record.get("action") == "STOP"]
        if stops:
            step = self._restorable()
            assert step is not None, "a run that can be stopped begins with one"
            path = str(checkpoint_paths(self._model_dir)[step])
            for record in stops:
                record |= {"restored": path, "restored_step": step}
        for record in self._log.add(found):
            at = f"step {record['step']:,}"
            if record["kind"] == RELEASE:
                subject = f" of {record['subject']}" if record["subject"] else ""
                self._tell(f"drift: {record['check']}{subject} no longer holds, at {at}")
                continue
            self._tell(f"drift: {record['action']} at {at}: {describe(record)}")
            self._notifier.send({**record, "model_dir": str(self._model_dir)})
            key = (record["check"], record["action"])
            self.alarms = {**self.alarms, key: self.alarms.get(key, 0) + 1}
        if stops:
            stop = self._log.stop()
            assert stop is not None, "it was just written"
            is_sound = stop.restored_step <= self._judge.sound_step(self._from_step)
            what = (
                "from before these rows" if is_sound else "the oldest there is: rows that may be bad changed it already"
            )
            raise DriftAlarm(
                f"the drift monitor stopped the training: {stop}.\n"
                f"The model is that of step {stop.restored_step:,} again, {what}.\n"
                f"The evidence is in {self._log.path}. Now decide:\n"
                + choices(self._model_dir, stop.restored_step, self._imports)
            )

    def _accept(self) -> None:
        """Takes over what somebody accepted from this window on; what was accepted earlier is in the state."""
        accepted = {key for one in self._log.acceptances() if one.row == self._from_row for key in one.keys}
        if accepted:
            self._detector.accept(accepted)
            self._judge.accept(accepted)

    # ---- the run

    def on_move(self, trainer: Trainer) -> None:
        """See Callback."""
        self._wait()
        self._detector.drop_window()
        self._judge.forget_window()
        self._scores = []

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        self._next, self._pending = [], []
        if trainer.step != self._step or self._position is None:
            # A new run, one that was not watched before, or one that moved.
            self._rows, self._step, self._position = trainer.rows, trainer.step, trainer.position
            self._begin()
        self._wants_start = self._judge.can_stop and trainer.checkpoint is None
        self._accept()

    def on_checkpoint(self, trainer: Trainer, checkpoint: object) -> None:
        """See Callback."""
        self._wants_start = False

    def close(self) -> None:
        """See Callback. Waits until all alarms were handed on."""
        self._notifier.close()
        self._worker.shutdown(cancel_futures=True)
        self._log.close()

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See Callback."""
        self._wait()
        state, arrays = self._detector.state()
        own = {
            "rows": self._rows,
            "step": self._step,
            "from_row": self._from_row,
            "from_step": self._from_step,
            "start": self._start,
            "position": self._position,
            "times": self._times,
            "end": self._end if math.isfinite(self._end) else None,
            "scores": self._scores,
            "judge": self._judge.state(),
            "detector": state,
        }
        return own, {f"detector/{name}": array for name, array in arrays.items()}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """See Callback."""
        self._rows, self._step, self._position = state["rows"], state["step"], state["position"]
        self._from_row, self._from_step, self._start = state["from_row"], state["from_step"], state["start"]
        self._times = list(state["times"])
        self._end = -math.inf if state["end"] is None else state["end"]
        self._scores = [(step, dict(metrics)) for step, metrics in state["scores"]]
        self._judge.restore(state["judge"])
        self._detector.restore(state["detector"], below("detector/", arrays))
