"""The numbers of a run on a stream, as they are now; and what a source is told at checkpoints."""

from __future__ import annotations

import datetime
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from easyrec_lite.checkpoints import Checkpoint, CheckpointError, list_checkpoints
from easyrec_lite.inputs import BadRows
from easyrec_lite.training import Callback

if TYPE_CHECKING:
    from easyrec_lite.training import StepsResult, Trainer

_LOG = logging.getLogger(__name__)
_RATE_SECONDS = 10.0  # over which rows a second are measured


class StreamSource(Protocol):
    """What a stream of messages tells of itself, and wants to be told; from any thread, without waiting."""

    @property
    def bad_rows(self) -> BadRows:
        """Counts the rows that can't be used."""

    @property
    def lost(self) -> int:
        """Messages that were gone before they could be read, since the start of the run."""

    def lag(self) -> Mapping[int, int]:
        """Messages not read yet, by partition."""

    def commit(self, position: str) -> None:
        """Shows others how far training is; failures are the source's business."""

    def forget_before(self, position: str) -> None:
        """Nobody will start from a position before this one any more."""


@dataclass(frozen=True, slots=True)
class StreamNumbers:
    """A run at one instant. Counts begin with this process, as Prometheus wants its counters.

    Attributes:
        step: steps done since the start of the run.
        rows: rows trained.
        rows_per_second: over the last ten seconds.
        losses: mean over the last steps, by name.
        lag: messages not read yet, by partition; empty for files.
        bad_rows: rows read that can't be used; the input reads ahead of training.
        lost_messages: messages gone before they could be read.
        seconds_since_checkpoint: since the newest was written, maybe by an earlier process; or since the start.
        event_time: the newest of the rows trained, seconds since 1970; None if unknown.
        seconds_behind: how long ago that was.
    """

    step: int = 0
    rows: int = 0
    rows_per_second: float = 0.0
    losses: Mapping[str, float] = field(default_factory=dict)
    lag: Mapping[int, int] = field(default_factory=dict)
    bad_rows: int = 0
    lost_messages: int = 0
    seconds_since_checkpoint: float = 0.0
    event_time: float | None = None
    seconds_behind: float | None = None


class StreamMonitor(Callback):
    """Knows how a run on a stream is doing; tells the source what is safe.

    At each checkpoint the source may commit the position in it and forget what lies before the oldest checkpoint kept.

    Args:
        source: the stream; None for files, which have no lag.
        clock: seconds since 1970.
    """

    def __init__(self, source: StreamSource | None = None, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()  # `snapshot` is called by others while training goes on
        self._step = 0
        self._losses: Mapping[str, float] = {}
        self._event_time = -math.inf
        self._saved_at = clock()
        self._past = deque([(self._saved_at, 0)])  # (time, rows trained), from some ten seconds ago on
        self._counted: tuple[int, int] | None = None  # bad rows and lost messages of earlier processes

    def snapshot(self) -> StreamNumbers:
        """The numbers as they are now; from any thread."""
        with self._lock:
            now, rows = self._clock(), self._past[-1][1]
            then, before = max(((t, r) for t, r in self._past if t <= now - _RATE_SECONDS), default=self._past[0])
            known = math.isfinite(self._event_time)
            bad, lost = self._counts()
            earlier_bad, earlier_lost = self._counted or (bad, lost)
            return StreamNumbers(
                step=self._step,
                rows=rows,
                rows_per_second=(rows - before) / (now - then) if now > then else 0.0,
                losses=self._losses,
                lag=dict(self._source.lag()) if self._source is not None else {},
                bad_rows=bad - earlier_bad,
                lost_messages=lost - earlier_lost,
                seconds_since_checkpoint=max(0.0, now - self._saved_at),
                event_time=self._event_time if known else None,
                seconds_behind=now - self._event_time if known else None,
            )

    def _counts(self) -> tuple[int, int]:
        return (self._source.bad_rows.tally.bad, self._source.lost) if self._source is not None else (0, 0)

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        with self._lock:
            now = self._clock()
            self._step, self._event_time = trainer.step, trainer.event_time
            self._past = deque([(now, 0)])
            # The source of a run that goes on takes over the old counts when it begins to read.
            self._counted = None if trainer.checkpoint is not None else (0, 0)
            self._saved_at = now
            if trainer.checkpoint is not None:
                self._saved_at = datetime.datetime.fromisoformat(trainer.checkpoint.manifest["time"]).timestamp()

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """See Callback."""
        with self._lock:
            now = self._clock()
            if self._counted is None:
                self._counted = self._counts()
            self._step = trainer.step
            self._losses = result.mean_losses or self._losses
            self._event_time = max(self._event_time, result.event_time)
            self._past.append((now, self._past[-1][1] + result.rows))
            while len(self._past) > 2 and self._past[1][0] <= now - _RATE_SECONDS:
                self._past.popleft()

    def on_checkpoint(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """See Callback."""
        with self._lock:
            self._saved_at = self._clock()
        if self._source is None:
            return
        self._source.commit(checkpoint.state["position"])
        try:
            oldest = list_checkpoints(trainer.model_dir)[0]
        except CheckpointError as error:
            _LOG.warning("the stream's ledger is kept as it is: %s", error)
        else:
            self._source.forget_before(oldest.state["position"])
