"""How fast trainings run, measured in turn: all live at once, each in a process of its own, and one runs at a time.

So what else the machine does hits all of them alike, and none of them starts cold. Where its memory lies makes one
process faster than another of the same kind by some per cent for as long as it lives: to see less, take several.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from easyrec_lite import _training
from easyrec_lite.config import PipelineConfig
from easyrec_lite.training import Callback, StepsResult, Trainer
from tools.bench._common import Enough, Spread

WARM_UP = 8  # steps
SETTLE = 16  # steps of a turn before it is measured: what was read ahead during the pause is used up
MEASURED = 24  # steps
EDITS = ("train_config.steps_per_call=8",)  # of all configs: turns end between calls of the loop

Build: TypeAlias = Callable[[Path], PipelineConfig]


@dataclasses.dataclass(frozen=True)
class Rate:
    """Rows a wall second, and CPU microseconds a row."""

    rows_per_second: float
    cpu_us: float


def batches(rounds: int) -> int:
    """How many a training takes in so many turns, with some to spare."""
    return WARM_UP + rounds * (SETTLE + MEASURED) + 16


class _Turns(Callback):
    """Trains when it is told to, and tells how fast that was."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._warm = False
        self._settled = self._end = 0  # steps
        self._since: tuple[float, float, int] | None = None

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """A call of the loop is over."""
        now, step = (time.perf_counter(), time.process_time(), trainer.rows), trainer.step
        if not self._warm:
            if step >= WARM_UP:
                self._pause(None, step)
        elif self._since is None:
            if step >= self._settled:
                self._since, self._end = now, step + MEASURED
        elif step >= self._end:
            wall, cpu, rows = (late - early for late, early in zip(now, self._since, strict=True))
            self._pause(Rate(rows / wall, cpu / rows * 1e6), step)

    def _pause(self, rate: Rate | None, step: int) -> None:
        """Hands the rate over, and waits for the next turn."""
        self._pipe.send(rate)
        try:
            go_on = self._pipe.recv()
        except EOFError:  # another training failed
            go_on = False
        if not go_on:
            raise Enough
        self._warm, self._since, self._settled = True, None, step + SETTLE


def _train(build: Build, pipe: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        _training.train(build(Path(folder)), _training.TrainOptions(callbacks=[_Turns(pipe)]))


def rates_in_turn(
    trainings: Mapping[str, Build], rounds: int, show: Callable[[str, Rate], None], copies: int = 1
) -> dict[str, list[Rate]]:
    """Trains in turn, each one once a round; returns the rates of each, by round, those of the first copy first.

    Args:
        trainings: by name, what makes the config, given a model_dir; it is called in another process. The data must be
            enough for `batches(rounds)`, with `EDITS`.
        rounds: how many.
        show: told of each rate.
        copies: processes of each.

    Raises:
        RuntimeError: a training ended early; it has said why.
    """
    context = get_context("spawn")
    pipes, processes = {}, []
    for key in itertools.product(range(copies), trainings):
        pipes[key], theirs = context.Pipe()
        processes.append(context.Process(target=_train, args=(trainings[key[1]], theirs), name=key[1]))
        processes[-1].start()
        theirs.close()
    found: dict[tuple[int, str], list[Rate]] = {key: [] for key in pipes}
    try:
        for pipe in pipes.values():
            pipe.recv()
        for number in range(rounds):
            for key in list(pipes)[:: -1 if number % 2 else 1]:
                pipes[key].send(True)
                found[key].append(pipes[key].recv())
                show(key[1], found[key][-1])
        for pipe in pipes.values():
            pipe.send(False)
    except (EOFError, BrokenPipeError) as error:
        raise RuntimeError("A training ended before everything was measured.") from error
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join()
    return {name: [rate for copy in range(copies) for rate in found[copy, name]] for name in trainings}


def ratios(mine: Sequence[Rate], others: Sequence[Rate]) -> Spread:
    """Of rates measured in turn."""
    return Spread.of(one.rows_per_second / other.rows_per_second for one, other in zip(mine, others, strict=True))


def cpu_ratios(mine: Sequence[Rate], others: Sequence[Rate]) -> Spread:
    """Of CPU time a row, likewise."""
    return Spread.of(one.cpu_us / other.cpu_us for one, other in zip(mine, others, strict=True))
