"""Training from Kafka beside training from Parquet, and reading alone.

    python -m tools.bench.kafka [--models DIN MultiTower] [--rounds 3] [--broker host:port]

The case of `tools.bench.training`: 20 id features, for DIN two histories of 19 positions on average, batch 4,096. The
same rows lie in a Parquet file, in a topic with one CSV row a message, and in a topic with Arrow messages of 100 rows;
4 partitions, on an Apache Kafka that is started for it (or `--broker`), on the same machine. Kafka is read live, with
its ledger; Parquet is shuffled; everything else that `easyrec_lite.train` does goes on.

* **x Parquet** is the rate in rows a second over that from Parquet, measured in turn, in processes of their own:
  the median of the rounds' ratios, with quartiles.
* **reading alone** is the source in an empty loop: what the reader's threads cost.
* **x bound**: on c cores a run can't be faster than its reader alone, nor than c / (CPU of training from Parquet -
  CPU of reading Parquet + CPU of reading Kafka). The measured rate as a share of the smaller of the two.

CPU time is that of the whole process, all threads, without the broker, which shares the machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pyarrow.parquet as pq

from easyrec_lite import _runs
from easyrec_lite.config import PipelineConfig
from easyrec_lite.inputs import as_dataset, input_errors
from easyrec_lite.models import Recommender
from easyrec_lite.terminal import main_guard, table
from easyrec_lite.training import Callback, StepsResult, Trainer
from tools._kafka_topics import Cluster
from tools.bench import _common
from tools.bench._cases import MODELS, Case, config_of, histories, write_rows
from tools.bench._common import Spread
from tools.kafka_broker import any_broker
from tools.kafka_replay import replay

SOURCES = {  # name: (format, rows a message, client)
    "Parquet": ("", 0, ""),
    "CSV x 1": ("csv", 1, "KAFKA_PYTHON"),
    "CSV x 1, confluent": ("csv", 1, "CONFLUENT"),
    "Arrow x 100": ("arrow", 100, "KAFKA_PYTHON"),
}
_FORMATS = {"csv": "CSV", "arrow": "ARROW"}
_WARM_UP = 8  # steps


@dataclasses.dataclass(frozen=True)
class Rate:
    """Rows a wall second, and CPU microseconds a row."""

    rows_per_second: float
    cpu_us: float


class _Enough(Exception):  # noqa: N818 - nothing went wrong
    """Everything is measured."""


class _Clock(Callback):
    """Measures the steps after the first ones."""

    def __init__(self, steps: int) -> None:
        self._steps, self._since, self.rate = steps, (0.0, 0.0, 0), Rate(0.0, 0.0)

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """A call of the loop is over."""
        now = time.perf_counter(), time.process_time(), trainer.rows
        if trainer.step <= _WARM_UP:
            self._since = now
        elif trainer.step >= self._steps:
            wall, cpu, rows = (late - early for late, early in zip(now, self._since, strict=True))
            self.rate = Rate(rows / wall, cpu / rows * 1e6)
            raise _Enough


def config(model: str, case: Case, source: str, data: Path, server: str, folder: Path) -> PipelineConfig:
    """The config of a model on one of `SOURCES`."""
    format, rows, client = SOURCES[source]
    edits = [f"train_config.steps_per_call={_WARM_UP // 2}"]
    if not format:
        return config_of(model, case, data, folder, edits)
    fields = []
    for name in pq.read_schema(data).names:
        is_list = name in histories(case)
        type_ = "STRING" if is_list and format == "csv" else "INT64"
        listed = " list: true" if is_list and format != "csv" else ""
        fields.append(f'input_fields {{ input_name: "{name}" input_type: {type_}{listed} }}')
    kafka = f"""kafka_train_input {{
        server: "{server}" topic: "{_topic(format, rows)}" group: "bench" value_format: {_FORMATS[format]}
        client: {client} max_wait_ms: 60000
    }}"""
    return config_of(model, case, data, folder, edits, kafka=kafka, fields=" ".join(fields))


def train(model: str, case: Case, source: str, data: Path, server: str) -> Rate:
    """Trains on a source; in a process of its own."""
    clock = _Clock(case.rows // case.batch - 1)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        _runs.train(config(model, case, source, data, server, Path(folder)), _runs.TrainOptions(callbacks=[clock]))
    return clock.rate


def read(model: str, case: Case, source: str, data: Path, server: str) -> Rate:
    """Reads what the model needs, and does nothing with it; in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = config(model, case, source, data, server, Path(folder)).message
        rows = _runs.training_source(settings, Recommender(settings, tables=False), Path(folder))
        with input_errors(rows):
            batches = iter(as_dataset(rows))
            for _ in range(_WARM_UP):
                next(batches)
            wall, cpu, count = time.perf_counter(), time.process_time(), case.rows // case.batch - 1 - _WARM_UP
            for _ in range(count):
                next(batches)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows.close()
        return Rate(count * case.batch / wall, cpu / (count * case.batch) * 1e6)


def _topic(format: str, rows: int) -> str:
    return f"bench-{format}-{rows}"


@contextlib.contextmanager
def topics(case: Case, folder: Path, broker: str | None) -> Iterator[tuple[Path, str]]:
    """The rows as a Parquet file and in topics; gives the file and the broker's address."""
    data = folder / "rows.parquet"
    write_rows(data, case)
    with contextlib.ExitStack() as stack:
        cluster = Cluster(broker) if broker else stack.enter_context(any_broker(folder / "kafka"))
        for format, rows, _ in SOURCES.values():
            if format and _topic(format, rows) not in cluster.topics():
                replay(
                    cluster.bootstrap, _topic(format, rows), str(data), format, rows_per_message=rows,
                    partitions=4, event_time_field=None,
                )  # fmt: skip
        yield data, cluster.bootstrap


def ratios(mine: Sequence[Rate], others: Sequence[Rate]) -> Spread:
    """Of rates measured in turn."""
    return Spread.of(one.rows_per_second / other.rows_per_second for one, other in zip(mine, others, strict=True))


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _common.parser("kafka", __doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["DIN", "MultiTower"])
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=Case().rows)
    parser.add_argument("--broker", help="host:port of a broker to use instead; topics bench-* are made there")
    flags = parser.parse_args(argv)
    case = dataclasses.replace(Case(), rows=flags.rows)
    sources = list(dict.fromkeys(["Parquet", *flags.sources]))
    folder = Path(tempfile.mkdtemp())
    results: dict[str, dict[str, dict[str, list[Rate]]]] = {}
    try:
        with topics(case, folder, flags.broker) as (data, server):
            for model in flags.models:
                trained: dict[str, list[Rate]] = {source: [] for source in sources}
                alone: dict[str, list[Rate]] = {source: [] for source in sources}
                for _ in range(flags.rounds):
                    for source in sources:
                        alone[source].append(_common.in_own_process(read, model, case, source, data, server))
                        trained[source].append(_common.in_own_process(train, model, case, source, data, server))
                        print(f"{model}, {source}: {trained[source][-1]}, alone {alone[source][-1]}", file=sys.stderr)
                results[model] = {"trained": trained, "alone": alone}
                show(model, sources, trained, alone)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _common.keep(flags.json, "kafka", {"case": case, "rounds": flags.rounds, "models": results})
    return 0


def show(model: str, sources: Sequence[str], trained: dict[str, list[Rate]], alone: dict[str, list[Rate]]) -> None:
    """Prints the table of a model."""
    rows = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for source in sources:
        rate, reading = (Spread.of(one.rows_per_second for one in rates[source]) for rates in (trained, alone))
        cpu, reading_cpu = (Spread.of(one.cpu_us for one in rates[source]) for rates in (trained, alone))
        shares = []
        for step, parquet, read_here, read_parquet in zip(
            trained[source], trained["Parquet"], alone[source], alone["Parquet"], strict=True
        ):
            cpu_bound = cores * 1e6 / (parquet.cpu_us - read_parquet.cpu_us + read_here.cpu_us)
            shares.append(step.rows_per_second / min(cpu_bound, read_here.rows_per_second))
        rows.append(
            (
                source,
                f"{rate.median:,.0f}",
                cpu.text(1),
                ratios(trained[source], trained["Parquet"]).text(),
                f"{reading.median:,.0f}",
                reading_cpu.text(1),
                Spread.of(shares).text(),
            )
        )
    names = ("source", "rows/s", "CPU us/row", "x Parquet", "reading alone, rows/s", "CPU us/row", "x bound")
    table(f"{model}, median (quartiles)", names, rows)


if __name__ == "__main__":
    sys.exit(main())
