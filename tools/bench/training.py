"""Training throughput of each model on one fixed case, beside the dense floor.

    python -m tools.bench.training [--models DIN DSSM] [--pairs 15] [--stages] [--profile] [--no_statistics]

The case: 20 features of width 16 in tables of 100,000 rows, zipf ids, MLPs 256-128-96-64 without batch norm, batch
4,096; for DIN two histories of at most 50 positions, 19 on average. Rows come from Parquet, and everything that
`easyrec_lite.train` does goes on: shuffling, features, plan, step, statistics of the data.

* **us/row** is CPU time of the whole process, all threads, divided by the rows trained.
* **the dense floor** is the same dense layers and losses, forward, backward and update, fed by ready group tensors (for
  DIN: true history positions) and nothing else. After each block of real steps the input pipeline comes to rest,
  then a block of floor steps runs: a pair. **x floor** is the median of the pairs' ratios, with quartiles. Before
  each real block others, which don't count, empty the buffers that filled meanwhile.
* **peak** is the largest resident set, with the floor's own ready batches in it (about 50 MB).

Each model runs in a process of its own. `--stages` runs the parts of a step alone, one after the other: their sum is
more than a step where a step overlaps them. `--profile` lists the ops of a step by time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from easyrec_lite import _sources, _training
from easyrec_lite.features import Statistics
from easyrec_lite.inputs import as_dataset, input_errors
from easyrec_lite.terminal import main_guard, table
from easyrec_lite.training import Callback, StepsResult, Trainer
from tools.bench import _common
from tools.bench._cases import MODELS, Case, config_of, write_rows
from tools.bench._common import Enough, Spread
from tools.bench._loops import DenseFloor, Loop, group_tensors, stage_loops
from tools.bench._profile import OpTime, Profiler, by_kind

_READY_BATCHES = 8
_TOP_OPS = 25


@dataclasses.dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        pairs: blocks of real steps, each followed by a block of floor steps.
        steps: steps a block; many more than batches are read ahead.
        statistics: record the statistics of the data, as the command does.
        stages: measure the stages of a step too.
        profile: list the ops of a step too.
        edits: changes of the config, `path=value`.
    """

    pairs: int = 15
    steps: int = 32
    statistics: bool = True
    stages: bool = False
    profile: bool = False
    edits: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a step, run alone; wall and CPU seconds a batch."""

    name: str
    wall: Spread
    cpu: Spread


@dataclasses.dataclass
class Result:
    """What a model costs. Seconds a step; CPU seconds are those of the whole process.

    Attributes:
        ratio: of the pairs: a real step over a floor step; cpu_ratio in CPU time.
        distinct_share: distinct rows that a batch looks up, as a share of its ids.
        stages: the parts of a step, each run alone.
        ops: of a step.
    """

    model: str
    step: Spread
    floor: Spread
    ratio: Spread
    cpu: Spread
    floor_cpu: Spread
    cpu_ratio: Spread
    batch: int
    distinct_share: float
    peak_bytes: int
    build_seconds: float
    first_steps_seconds: float
    stages: list[Stage] = dataclasses.field(default_factory=list)
    ops: list[OpTime] = dataclasses.field(default_factory=list)

    @property
    def cpu_us_per_row(self) -> Spread:
        """CPU microseconds a row."""
        return self.cpu.scaled(1e6 / self.batch)


class _Pairs(Callback):
    """Measures every second call of the loop and runs the floor after it. Must be the last of the callbacks."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._calls = 0
        self._since = (0.0, 0.0)
        self._profiler: Profiler | None = None
        self.started = 0.0  # the first call of the loop
        self.first_steps_seconds = 0.0
        self.peak_bytes = 0
        self.steps: list[float] = []
        self.cpus: list[float] = []
        self.floors: list[float] = []
        self.floor_cpus: list[float] = []
        self.ops: list[OpTime] = []

    def on_start(self, trainer: Trainer) -> None:
        """Before the first call of the loop."""
        self.started = time.perf_counter()
        self.trainer = trainer
        recommender = trainer.recommender
        self.source = _sources.training_source(recommender.config, recommender, self._folder)
        with input_errors(self.source):
            self.raw = [element[0] for element in as_dataset(self.source).take(_READY_BATCHES)]
        ready = [group_tensors(recommender, recommender.encode(columns)) for columns in self.raw]
        self._floor = DenseFloor(recommender.config, ready)
        self._floor(2)
        self._since = (time.perf_counter(), time.process_time())

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """A call of the loop is over: the first warms up, then one empties the buffers and one counts."""
        wall, cpu = time.perf_counter() - self._since[0], time.process_time() - self._since[1]
        if self._profiler is not None:
            self.ops = [
                dataclasses.replace(op, seconds=op.seconds / result.steps, calls=op.calls / result.steps)
                for op in self._profiler.stop()
            ]
            raise Enough
        self._calls += 1
        if self._calls == 1:
            self.first_steps_seconds = wall
        elif self._calls % 2:
            self.steps.append(wall / result.steps)
            self.cpus.append(cpu / result.steps)
            self._run_floor(result.steps)
            if len(self.steps) == self._options.pairs:
                self.peak_bytes = _common.peak_bytes()
                if not self._options.profile:
                    raise Enough
                self._profiler = Profiler()
                self._profiler.start()
        self._since = (time.perf_counter(), time.process_time())

    def _run_floor(self, steps: int) -> None:
        _common.wait_until_idle()
        self._floor(2)
        wall, cpu = time.perf_counter(), time.process_time()
        self._floor(steps)
        self.floors.append((time.perf_counter() - wall) / steps)
        self.floor_cpus.append((time.process_time() - cpu) / steps)


def measure(model: str, case: Case, data: Path, options: Options) -> Result:
    """Trains `model` on the file `data` and measures it; each call in a fresh process, for the peak and the threads.

    Raises:
        ConfigError: an edit doesn't fit.
    """
    if not options.statistics:
        _training.StatisticsRecorder = lambda *_: Callback()  # type: ignore[assignment, misc]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        edits = (f"train_config.steps_per_call={options.steps}", *options.edits)
        config = config_of(model, case, data, Path(folder) / "model", edits)
        pairs = _Pairs(options, Path(folder))
        with contextlib.suppress(Enough):
            _training.train(config, _training.TrainOptions(callbacks=[pairs]))
        stages = list(_stages(pairs)) if options.stages else []
    return Result(
        model=model,
        step=Spread.of(pairs.steps),
        floor=Spread.of(pairs.floors),
        ratio=_ratios(pairs.steps, pairs.floors),
        cpu=Spread.of(pairs.cpus),
        floor_cpu=Spread.of(pairs.floor_cpus),
        cpu_ratio=_ratios(pairs.cpus, pairs.floor_cpus),
        batch=config.message.data_config.batch_size,
        distinct_share=_distinct_share(pairs),
        peak_bytes=pairs.peak_bytes,
        build_seconds=pairs.started - started,
        first_steps_seconds=pairs.first_steps_seconds,
        stages=stages,
        ops=pairs.ops,
    )


def _ratios(steps: Sequence[float], floors: Sequence[float]) -> Spread:
    return Spread.of(step / floor for step, floor in zip(steps, floors, strict=True))


def _stages(pairs: _Pairs) -> Iterator[Stage]:
    """The parts of a step, alone."""
    _common.wait_until_idle()
    read = Loop(lambda element: element, as_dataset(pairs.source))
    yield Stage("read: Parquet to columns", *read.cost(count=32))
    del read
    for name, loop in stage_loops(pairs.trainer.stepper, pairs.raw):
        yield Stage(name, *loop.cost())
    recommender, statistics, walls = pairs.trainer.recommender, Statistics(), []
    for columns in pairs.raw:
        encoded, labels = recommender.encode_features(columns), recommender.labels(columns)[0]
        start = time.perf_counter()
        statistics.update(encoded, labels)
        walls.append(time.perf_counter() - start)
    yield Stage("statistics of the data", Spread.of(walls), Spread.of(walls))  # NumPy, on one thread


def _distinct_share(pairs: _Pairs) -> float:
    """Distinct rows that a batch looks up, as a share of its ids; the row of missing ids left out."""
    plans = [pairs.trainer.recommender.encode(columns).plan for columns in pairs.raw]
    # Tables of several widths with the same rows have one plan.
    distinct = {id(rows): int(tf.size(rows)) - 1 for plan in plans for rows in plan.distinct.values()}
    ids = {id(places): int(tf.size(places)) for plan in plans for places in plan.positions.values()}
    return sum(distinct.values()) / max(sum(ids.values()), 1)


def measure_all(models: Sequence[str], case: Case, options: Options) -> Iterator[Result]:
    """Makes the rows, then measures each model in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        write_rows(data, case)
        for model in models:
            config_of(model, case, data, folder, options.edits)  # what is wrong with an edit is told here
        for model in models:
            result = _common.in_own_process(measure, model, case, data, options)
            print(f"{model}: {result.cpu_us_per_row.text(1)} us/row, {result.ratio.text()} x floor", file=sys.stderr)
            yield result


def show(results: Sequence[Result]) -> None:
    """Prints the tables."""
    columns = ("model", "us/row", "step ms", "floor ms", "x floor", "CPU x floor", "distinct", "peak MiB", "first s")
    rows = [
        (
            result.model,
            result.cpu_us_per_row.text(1),
            result.step.scaled(1e3).text(1),
            result.floor.scaled(1e3).text(1),
            result.ratio.text(),
            result.cpu_ratio.text(),
            f"{result.distinct_share:.0%}",
            result.peak_bytes >> 20,
            round(result.build_seconds + result.first_steps_seconds, 1),
        )
        for result in results
    ]
    table("Training from Parquet, median (quartiles)", columns, rows)
    for result in results:
        if result.stages:
            stages = [
                (stage.name, stage.wall.scaled(1e3).text(), stage.cpu.scaled(1e3).text()) for stage in result.stages
            ]
            table(f"\n{result.model}: parts of a step, each alone", ("part", "wall ms", "CPU ms"), stages)
        if result.ops:
            whole = sum(op.seconds for op in result.ops)
            for title, ops in (("types of ops", by_kind(result.ops)), ("ops", result.ops)):
                lines = [
                    (op.kind, op.name, f"{op.seconds * 1e3:.2f}", f"{op.seconds / whole:.1%}", f"{op.calls:.1f}")
                    for op in ops[:_TOP_OPS]
                ]
                title = f"\n{result.model}: {title} by kernel time, {whole * 1e3:.1f} ms a step over all threads"
                table(title, ("type", "op", "ms", "share", "calls"), lines)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _common.parser("training", __doc__)
    defaults, case = Options(), Case()
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--pairs", type=int, default=defaults.pairs, help="blocks of real steps and of floor steps")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="steps a block")
    parser.add_argument("--rows", type=int, default=case.rows, help="rows of the file, which is read again and again")
    parser.add_argument("--batch_norm", action="store_true", help="batch norm in every tower")
    parser.add_argument("--no_statistics", action="store_true", help="don't record the statistics of the data")
    parser.add_argument("--stages", action="store_true", help="time the parts of a step too")
    parser.add_argument("--profile", action="store_true", help="list the ops of a step too")
    parser.add_argument("--edit", action="append", default=[], metavar="PATH=VALUE", help="change the config")
    flags = parser.parse_args(argv)
    options = Options(flags.pairs, flags.steps, not flags.no_statistics, flags.stages, flags.profile, tuple(flags.edit))
    case = dataclasses.replace(case, rows=flags.rows, batch_norm=flags.batch_norm)
    results = list(measure_all(flags.models, case, options))
    show(results)
    _common.keep(flags.json, "training", {"case": case, "options": options, "models": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
