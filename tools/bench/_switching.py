"""What the drift monitor leaves of the rate of a training: switched on and off in turn, within one process.

Two processes of the same training differ by some per cent for as long as they live, by where their memory lies: as
much as the monitor takes. Within one, both kinds of turns run in the same memory, seconds apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyrec_lite import _training
from easyrec_lite.streaming import building
from easyrec_lite.streaming.drift_monitor import DriftMonitor
from easyrec_lite.training import Callback, ObservedBatch, Until
from tools.bench._common import Enough
from tools.bench._rates import Build, Rate

if TYPE_CHECKING:
    from easyrec_lite.training import StepsResult, Trainer

CALL = 12  # steps of a call of the loop, at most: four windows of three batches
_SETTLE, _MEASURED = CALL, 2 * CALL  # steps of a turn


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two turns, one after the other."""

    off: Rate
    on: Rate


class _Switched(DriftMonitor):
    """A monitor that looks away when it is told to."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._on = True
        super().__init__(*arguments, **options)

    def switch(self, trainer: Trainer, on: bool) -> None:
        """Looks from here on, or away."""
        self._on = on
        if on:
            self.on_move(trainer)
            self.on_start(trainer)

    def until(self, trainer: Trainer) -> Until:
        """See Callback."""
        return super().until(trainer) if self._on else Until()

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """See Callback."""
        if self._on:
            super().on_steps(trainer, result)

    def _take(self, batch: ObservedBatch) -> None:
        if self._on:
            super()._take(batch)


class _Turns(Callback):
    """Switches the monitor, and measures: off, on, on, off, off, on, ..., so that what drifts hits both alike."""

    def __init__(self, pairs: int, pipe: Connection) -> None:
        self._pairs, self._pipe = pairs, pipe
        self.monitor: _Switched | None = None
        self._turn = -2  # turns before the first learn what is usual, and are not measured
        self._steps = 0  # of the turn
        self._since: tuple[float, float, int] | None = None
        self._rates: dict[bool, Rate] = {}

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """A call of the loop is over."""
        now = (time.perf_counter(), time.process_time(), trainer.rows)
        assert self.monitor is not None
        self._steps += result.steps
        if self._since is None and self._steps >= _SETTLE:
            self._since = now
        if self._steps < _SETTLE + _MEASURED:
            return
        assert self._since is not None
        wall, cpu, rows = (late - early for late, early in zip(now, self._since, strict=True))
        if self._turn >= 0:
            self._rates[self._is_on(self._turn)] = Rate(rows / wall, cpu / rows * 1e6)
            if self._turn % 2:
                self._pipe.send(Pair(self._rates[False], self._rates[True]))
        self._turn, self._steps, self._since = self._turn + 1, 0, None
        if self._turn >= 2 * self._pairs:
            raise Enough
        self.monitor.switch(trainer, self._is_on(self._turn))

    @staticmethod
    def _is_on(turn: int) -> bool:
        return turn % 4 in (1, 2)


def _train(build: Build, pairs: int, pipe: Connection) -> None:
    turns = _Turns(pairs, pipe)

    def made(*arguments: Any, **options: Any) -> _Switched:
        turns.monitor = _Switched(*arguments, **options)
        return turns.monitor

    building.DriftMonitor = made  # type: ignore[assignment, misc]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        _training.train(build(Path(folder)), _training.TrainOptions(callbacks=[turns]))


def switched(build: Build, pairs: int, copies: int, show: Callable[[Pair], None]) -> list[Pair]:
    """Trains in processes one after the other, with the monitor on and off in turn.

    Args:
        build: makes the config, with a drift monitor and `steps_per_call` CALL, given a model_dir.
        pairs: of turns in each process.
        copies: processes.
        show: told of each pair.

    Raises:
        RuntimeError: a training ended early; it has said why.
    """
    context, found = get_context("spawn"), []
    for _ in range(copies):
        ours, theirs = context.Pipe()
        process = context.Process(target=_train, args=(build, pairs, theirs))
        process.start()
        theirs.close()
        try:
            for _ in range(pairs):
                found.append(ours.recv())
                show(found[-1])
        except EOFError as error:
            raise RuntimeError("A training ended before everything was measured.") from error
        finally:
            ours.close()
            process.join()
    return found
