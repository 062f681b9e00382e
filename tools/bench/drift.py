"""How well drift is found, and what looking for it costs.

    python -m tools.bench.drift [--data data/taobao] [--seeds 20] [--clean_rows 5000000]
    python -m tools.bench.drift --cost
    python -m tools.bench.drift --throughput [--pairs 12] [--copies 3]

Rows come from `tools.data.taobao_like` in the order of time, with its cycles of day and week and its trends: five
populations, each with two weeks of rows as the reference (`statistics.json`, as training writes it) and the four days
after them as the stream; with `--data` a week, and the rest of the files. They are encoded by the features of
samples/configs/multi_tower_taobao_stream.config and watched with default thresholds, in windows of 10,240 rows: ten
batches of 1,024.

* **False alarms**: breaches of any check in the streams as they are. Patience is 1, so each would be an alarm.
* **Detection**: for every seed the stream is forked at some window after the tenth, and a drift goes in: at the
  window's first row, and in a second run anywhere within the window. It is found by the first window that any check
  is breached in; its delay is counted in rows of the stream, from the first that may be changed to that window's end.

Thresholds were chosen on TUNING_SEEDS; what is reported is of REPORTED_SEEDS, other populations and other drifts.

`--cost`: CPU time of the detector alone on the batches of the measured MultiTower (20 id features, zipf ids).
`--throughput`: that MultiTower trained from Parquet, with the monitor, all checks on all features, windows of 10,000
rows, switched on and off in turn (see `_switching`): the median of all ratios, with quartiles.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from easyrec_lite.config import PipelineConfig
from easyrec_lite.features import Ids, Profile, Statistics
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming.drift import Detector, Measurement, WatchedBatch, WindowFacts
from easyrec_lite.terminal import main_guard, table
from tools.bench import _common
from tools.bench._cases import Case, config_of, write_rows
from tools.bench._common import Spread
from tools.bench._rates import cpu_ratios, ratios
from tools.bench._switching import CALL, Pair, switched
from tools.drift import Drift, inject

WINDOW = 10_240
POPULATIONS = 5
TUNING_SEEDS = tuple(range(1, 1 + POPULATIONS))
REPORTED_SEEDS = tuple(range(101, 101 + POPULATIONS))

_PARTITIONS = 4
_PARTITION = "partition"
_FIRST = 10  # windows that what statistics don't know is learned from
_LOOK = 3  # windows after a drift that are looked at
_MISSING = ("age_level", "city_level", "item_id", "hist_cate_id", "price")
_NEW = ("user_id", "item_id", "customer_id", "brand_id")


def drifts(seed: int) -> dict[str, Drift]:
    """The drifts of a seed; which feature is hit goes by the seed."""
    missing, new = _MISSING[seed % len(_MISSING)], _NEW[seed % len(_NEW)]
    return {
        "label rate +20 %": Drift("label_rate_up", 0.2, column="clk", seed=seed),
        "label rate -20 %": Drift("label_rate_down", 0.2, column="clk", seed=seed),
        "5 % more missing": Drift("missing", 0.05, column=missing, seed=seed),
        "number shifted by s/2": Drift("numeric_shift", 0.5, column="price", seed=seed, log=True),
        "10 % of the ids new": Drift("new_ids", 0.1, column=new, seed=seed),
        "a partition silent": Drift("silent_partition", float(seed % _PARTITIONS), column=_PARTITION, seed=seed),
        "2 % repeated rows": Drift("duplicates", 0.02, seed=seed),
        "5 % labels flipped": Drift("label_flips", 0.05, column="clk", seed=seed),
    }


@dataclasses.dataclass(frozen=True)
class Trial:
    """A drift that was injected.

    Attributes:
        name: of the drift.
        aligned: it began with a window.
        delay: rows of the stream until it was found; None if it was not.
        checks: which found it then.
    """

    name: str
    aligned: bool
    delay: int | None
    checks: tuple[str, ...]


@dataclasses.dataclass
class Result:
    """Of one population.

    Attributes:
        windows: of clean rows that were measured.
        alarms: breaches in them: window, check, subject, value, reference.
        trials: the drifts.
        seconds: how long it took.
    """

    windows: int = 0
    alarms: list[tuple[int, str, str, float, float]] = dataclasses.field(default_factory=list)
    trials: list[Trial] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Job:
    """One population to be measured: its seed, those of its drifts, rows of its stream; or a folder of rows."""

    population: int
    seeds: tuple[int, ...]
    stream: int
    data: str = ""


def measure(job: Job) -> Result:
    """Measures a population, in a process of its own."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from tools.bench._drift_rows import Encoder, Rows, generated, profile_of, read

    began = time.perf_counter()
    rows: Rows = read(job.data) if job.data else generated(job.population, job.stream)
    encode = Encoder(rows.table(0, 1).schema)
    profile = profile_of(rows, encode, WINDOW)
    config = stream_pb2.DriftConfig(reference_statistics="statistics.json")
    detector, result = Detector(config, profile), Result()
    windows = (rows.total - rows.reference) // WINDOW
    random = np.random.default_rng(job.population)
    starts: dict[int, list[int]] = {}
    for seed in job.seeds:
        starts.setdefault(int(random.integers(_FIRST + 1, windows - _LOOK)), []).append(seed)

    def raw(start: int, stop: int) -> pa.Table:
        part = rows.table(rows.reference + start, rows.reference + stop)
        return part.append_column(_PARTITION, pa.array(np.arange(start, stop) % _PARTITIONS))

    def judged(watch: Detector, part: pa.Table) -> list[Measurement]:
        batch = encode(part)
        watch.update(batch)
        counts = np.bincount(part[_PARTITION].to_numpy(), minlength=_PARTITIONS)
        messages = {partition: int(count) for partition, count in enumerate(counts)}
        return watch.end_window(WindowFacts(0, batch.rows, 0, 1, batch.event_time, messages))

    for window in range(windows):
        for seed in starts.get(window, ()):
            # Dropped rows make a window of what comes after it.
            ahead = raw(window * WINDOW, min((window + _LOOK + 2) * WINDOW, windows * WINDOW))
            inside = int(np.random.default_rng(seed).integers(1, WINDOW))
            for name, drift in drifts(seed).items():
                for begin in (0, inside):
                    drifted = inject(ahead, dataclasses.replace(drift, at_row=begin))
                    state = detector.state()
                    fork = Detector(config, profile)
                    fork.restore(*state)
                    result.trials.append(_trial(name, begin, drifted, functools.partial(judged, fork)))
        found = judged(detector, raw(window * WINDOW, (window + 1) * WINDOW))
        result.windows += 1
        result.alarms += [(window, one.check, one.subject, one.value, one.reference) for one in found if one.breached]
    result.seconds = time.perf_counter() - began
    return result


def _trial(name: str, begin: int, drifted: pa.Table, judged: Callable[[pa.Table], list[Measurement]]) -> Trial:
    for place in range(_LOOK):
        found = judged(drifted.slice(place * WINDOW, WINDOW))
        checks = tuple(sorted({one.check for one in found if one.breached}))
        if checks:
            return Trial(name, not begin, (place + 1) * WINDOW - begin, checks)
    return Trial(name, not begin, None, ())


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """The upper end of the one-sided interval for a probability (Clopper and Pearson 1934)."""
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        terms = (
            math.lgamma(trials + 1)
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * math.log(middle)
            + (trials - k) * math.log1p(-middle)
            for k in range(events + 1)
        )
        low, high = (middle, high) if sum(map(math.exp, terms)) > 1 - confidence else (low, middle)
    return high


def detection(seeds: int, clean_rows: int, data: str, *, tuning: bool) -> list[Result]:
    """Measures the populations, side by side; those that thresholds were chosen on, or those that are reported."""
    populations = TUNING_SEEDS if tuning else REPORTED_SEEDS
    own = [1000 * populations[0] + number for number in range(seeds)]
    if data:
        jobs = [Job(populations[0], tuple(own), 0, data)]
    else:
        stream = -(-clean_rows // len(populations) // WINDOW) * WINDOW
        jobs = [
            Job(population, tuple(own[place :: len(populations)]), stream)
            for place, population in enumerate(populations)
        ]
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        return list(pool.map(measure, jobs))


def report(results: Sequence[Result]) -> None:
    """Prints the figures."""
    trials = [trial for result in results for trial in result.trials]
    for aligned, title in ((True, "drift that begins with a window"), (False, "drift that begins within a window")):
        lines = []
        for name in drifts(0):
            own = [trial for trial in trials if trial.name == name and trial.aligned == aligned]
            delays = [trial.delay for trial in own if trial.delay is not None]
            last = [-(-delay // WINDOW) for delay in delays]  # the window that found it
            checks = Counter(check for trial in own for check in trial.checks)
            lines.append(
                (
                    name,
                    len(own),
                    *(sum(number <= window for number in last) for window in range(1, _LOOK + 1)),
                    f"{statistics.median(delays):,.0f}" if delays else "-",
                    f"{max(delays):,}" if delays else "-",
                    ", ".join(f"{check} {count}" for check, count in checks.most_common(3)),
                )
            )
        windows = [f"found by window {number}" for number in range(1, _LOOK + 1)]
        heads = ("drift", "seeds", *windows, "median delay", "longest", "by")
        table(title, heads, lines)
    total, alarms = sum(result.windows for result in results), [a for result in results for a in result.alarms]
    hit = len({(number, alarm[0]) for number, result in enumerate(results) for alarm in result.alarms})
    bound = upper_bound(hit, total)
    table(
        "clean rows",
        ("rows", "windows", "windows with a false alarm", "95 % upper bound a window", "in a million rows"),
        [(f"{total * WINDOW:,}", total, hit, f"{bound:.2%}", f"{bound * 1e6 / WINDOW:.2f}")],
    )
    for window, check, subject, value, reference in alarms[:20]:
        print(f"false alarm in window {window}: {check} {subject}, {value:.5g}, usually {reference:.5g}")
    print(f"{sum(result.seconds for result in results):.0f} s of work")


def cost(batches: int = 48, rounds: int = 7) -> dict[str, Spread]:
    """Prints CPU time of the detector, microseconds a row, by reference, and returns it."""
    case = Case(rows=batches * Case.batch)
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "rows.parquet", case)
        rows = pq.read_table(Path(folder) / "rows.parquet")
    names = [*case.user_features, *case.item_features]
    random = np.random.default_rng(0)
    watched = []
    for number in range(batches):
        part = rows.slice(number * case.batch, case.batch)
        encoded = {name: Ids(part[name].combine_chunks().to_numpy()) for name in names}
        labels = {name: part[name].to_numpy().astype(np.float32) for name in ("clk", "buy")}
        times = 1_704_067_200.0 + 60.0 * number + np.sort(random.random(case.batch)) * 60.0
        watched.append(WatchedBatch(case.batch, encoded, labels, {}, (times[0], times[-1]), times))
    seen = Statistics()
    for batch in watched[: batches // 2]:
        seen.update(batch.encoded, batch.labels, batch.times)
    profile = Profile.from_json(seen.to_json())
    found = {}
    for kind, config, reference in (
        ("statistics", stream_pb2.DriftConfig(reference_statistics="statistics.json"), profile),
        ("first windows", stream_pb2.DriftConfig(), None),
        ("half-life", stream_pb2.DriftConfig(reference_half_life_windows=20), None),
    ):
        detector, spent = Detector(config, reference), []
        for number in range(rounds):
            began = time.process_time()
            for place, batch in enumerate(watched, 1):
                detector.update(batch)
                if place % 3 == 0:
                    span = (1_704_067_200.0 + 60.0 * (place - 3), 1_704_067_200.0 + 60.0 * place)
                    detector.end_window(WindowFacts(0, 3 * case.batch, 0, 3, span, {0: 3, 1: 3}))
            if number:  # the first learns
                spent.append((time.process_time() - began) / (batches * case.batch) * 1e6)
        found[kind] = Spread.of(spent)
    lines = [(kind, spread.text()) for kind, spread in found.items()]
    table("CPU microseconds a row, 20 id features, median (quartiles)", ("reference", "CPU us/row"), lines)
    return found


def _config(data: Path, folder: Path) -> PipelineConfig:
    edits = [f"train_config.steps_per_call={CALL}", "stream_config.drift={reference_first_windows: 2}"]
    return config_of("MultiTower", Case(), data, folder, edits)


def throughput(pairs: int, copies: int) -> list[Pair]:
    """Prints what the monitor leaves of the rate of training, and returns the turns."""

    def show(pair: Pair) -> None:
        print(f"off: {pair.off}, on: {pair.on}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        write_rows(data, dataclasses.replace(Case(), rows=200 * Case.batch))
        found = switched(functools.partial(_config, data), pairs, copies, show)
    off, on = [pair.off for pair in found], [pair.on for pair in found]
    lines = []
    for name, rates in (("off", off), ("on", on)):
        rows, cpu = (Spread.of(getattr(rate, key) for rate in rates) for key in ("rows_per_second", "cpu_us"))
        lines.append(
            (name, f"{rows.median:,.0f}", cpu.text(1), ratios(rates, off).text(), cpu_ratios(rates, off).text())
        )
    heads = ("monitor", "rows/s", "CPU us/row", "x rate", "x CPU")
    table(f"MultiTower, {pairs} pairs of turns in each of {copies} processes, median (quartiles)", heads, lines)
    by_copy = [ratios(on[n : n + pairs], off[n : n + pairs]).median for n in range(0, len(found), pairs)]
    print(f"median rate by process: {', '.join(f'{median:.3f}' for median in by_copy)}")
    return found


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _common.parser("drift", __doc__)
    add = parser.add_argument
    add("--data", default="", metavar="DIR", help="folder of tools.data.taobao_like (default: rows are made)")
    add("--seeds", type=int, default=20, metavar="N", help="drifts of each kind (%(default)s)")
    add("--clean_rows", type=int, default=5_000_000, metavar="N", help="of all streams together (%(default)s)")
    add("--tuning", action="store_true", help="on the seeds that thresholds were chosen on")
    add("--cost", action="store_true", help="measure the cost instead")
    add("--throughput", action="store_true", help="measure what it leaves of the rate of training instead")
    add("--pairs", type=int, default=12, metavar="N", help="of --throughput, turns in each process (%(default)s)")
    add("--copies", type=int, default=3, metavar="N", help="of --throughput, processes (%(default)s)")
    flags = parser.parse_args(argv)
    results: Any
    if flags.throughput:
        results = throughput(flags.pairs, flags.copies)
    elif flags.cost:
        results = cost()
    else:
        results = detection(flags.seeds, flags.clean_rows, flags.data, tuning=flags.tuning)
        report(results)
    _common.keep(flags.json, "drift", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
