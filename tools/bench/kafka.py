"""Training from Kafka beside training from Parquet, and reading alone.

    python -m tools.bench.kafka [--models DIN MultiTower] [--rounds 9] [--copies 1] [--lean] [--broker host:port]

The case of `tools.bench.training`: 20 id features, for DIN two histories of 19 positions on average, batch 4,096. The
same rows lie in a Parquet file, in a topic with one CSV row a message, and in a topic with Arrow messages of 100 rows;
4 partitions, on an Apache Kafka that is started for it (or `--broker`), on the same machine. Kafka is read live, with
its ledger; Parquet is shuffled; everything else that `easyrec_lite.train` does goes on. All rows have the histories,
three fifths of their bytes: from Parquet a model reads only its own columns, but a message comes whole. With `--lean`
no rows have them.

* **x Parquet** is the rate in rows a second over that from Parquet, measured in turn: all trainings live at once, in
  processes of their own (`--copies` of each), and each in its turn does 24 steps after 16 that use up what was read
  ahead. The median of all ratios, with quartiles.
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
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pyarrow.parquet as pq

from easyrec_lite import _sources
from easyrec_lite.config import PipelineConfig
from easyrec_lite.inputs import as_dataset, input_errors
from easyrec_lite.models import Recommender
from easyrec_lite.terminal import main_guard, table
from tools._kafka_topics import Cluster
from tools.bench import _common
from tools.bench._cases import MODELS, Case, config_of, histories, write_rows
from tools.bench._common import Spread
from tools.bench._rates import EDITS, WARM_UP, Rate, batches, rates_in_turn, ratios
from tools.kafka_broker import any_broker
from tools.kafka_replay import replay

SOURCES = {  # name: (format, rows a message, client)
    "Parquet": ("", 0, ""),
    "CSV x 1": ("csv", 1, "KAFKA_PYTHON"),
    "CSV x 1, confluent": ("csv", 1, "CONFLUENT"),
    "Arrow x 100": ("arrow", 100, "KAFKA_PYTHON"),
    "Arrow x 100, confluent": ("arrow", 100, "CONFLUENT"),
}
_FORMATS = {"csv": "CSV", "arrow": "ARROW"}
_READ, _READ_ROUNDS = 64, 3  # batches that are read alone, and how often


def config(model: str, case: Case, source: str, data: Path, server: str, folder: Path) -> PipelineConfig:
    """The config of a model on one of `SOURCES`."""
    format, rows, client = SOURCES[source]
    if not format:
        return config_of(model, case, data, folder, EDITS)
    fields = []
    for name in pq.read_schema(data).names:
        is_list = name in histories(case)
        type_ = "STRING" if is_list and format == "csv" else "INT64"
        listed = " list: true" if is_list and format != "csv" else ""
        fields.append(f'input_fields {{ input_name: "{name}" input_type: {type_}{listed} }}')
    kafka = f"""kafka_train_input {{
        server: "{server}" topic: "{_topic(format, rows, data)}" group: "bench" value_format: {_FORMATS[format]}
        client: {client} max_wait_ms: 60000
    }}"""
    return config_of(model, case, data, folder, EDITS, kafka=kafka, fields=" ".join(fields))


def read(model: str, case: Case, source: str, data: Path, server: str) -> Rate:
    """Reads what the model needs, and does nothing with it; in a process of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # the last batch may yet enter the ledger
        settings = config(model, case, source, data, server, Path(folder)).message
        rows = _sources.training_source(settings, Recommender(settings, tables=False), Path(folder))
        with input_errors(rows):
            read_batches = iter(as_dataset(rows))
            for _ in range(WARM_UP):
                next(read_batches)
            wall, cpu, count = time.perf_counter(), time.process_time(), _READ - WARM_UP
            for _ in range(count):
                next(read_batches)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows.close()
        return Rate(count * case.batch / wall, cpu / (count * case.batch) * 1e6)


def _topic(format: str, rows: int, data: Path) -> str:
    return f"bench-{format}-{rows}-{len(pq.read_schema(data).names)}"  # with and without histories


@contextlib.contextmanager
def topics(
    case: Case, folder: Path, broker: str | None, sources: Sequence[str] = tuple(SOURCES), *, lean: bool = False
) -> Iterator[tuple[Path, str]]:
    """The rows as a Parquet file and in topics; gives the file and the broker's address.

    Args:
        case: the rows.
        folder: for the file, and for a broker.
        broker: host:port of one to use; None: it is started.
        sources: those that topics are needed for.
        lean: rows without histories.
    """
    data = folder / "rows.parquet"
    write_rows(data, case)
    if lean:
        pq.write_table(pq.read_table(data).drop_columns(list(histories(case))), data, row_group_size=65_536)
    with contextlib.ExitStack() as stack:
        cluster = Cluster(broker) if broker else stack.enter_context(any_broker(folder / "kafka"))
        for format, rows, _ in map(SOURCES.__getitem__, sources):
            if format and _topic(format, rows, data) not in cluster.topics():
                replay(
                    cluster.bootstrap, _topic(format, rows, data), str(data), format, rows_per_message=rows,
                    partitions=4, event_time_field=None,
                )  # fmt: skip
        yield data, cluster.bootstrap


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _common.parser("kafka", __doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["DIN", "MultiTower"])
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--copies", type=int, default=1, help="processes of each training")
    parser.add_argument("--lean", action="store_true", help="rows without histories, for models that don't read them")
    parser.add_argument("--broker", help="host:port of a broker to use instead; topics bench-* are made there")
    flags = parser.parse_args(argv)
    if flags.lean and "DIN" in flags.models:
        parser.error("DIN reads histories: name other --models for --lean")
    case = dataclasses.replace(Case(), rows=Case.batch * max(batches(flags.rounds), _READ + 1))
    sources = list(dict.fromkeys(["Parquet", *flags.sources]))
    folder = Path(tempfile.mkdtemp())
    results: dict[str, dict[str, dict[str, list[Rate]]]] = {}
    try:
        with topics(case, folder, flags.broker, sources, lean=flags.lean) as (data, server):
            for model in flags.models:
                builds = {source: partial(config, model, case, source, data, server) for source in sources}
                trained = rates_in_turn(builds, flags.rounds, partial(_say, model), flags.copies)
                alone: dict[str, list[Rate]] = {source: [] for source in sources}
                for source in sources * min(flags.rounds, _READ_ROUNDS):
                    alone[source].append(_common.in_own_process(read, model, case, source, data, server))
                results[model] = {"trained": trained, "alone": alone}
                show(model, sources, trained, alone)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _common.keep(flags.json, "kafka", {"case": case, "rounds": flags.rounds, "lean": flags.lean, "models": results})
    return 0


def _say(model: str, source: str, rate: Rate) -> None:
    print(f"{model}, {source}: {rate}", file=sys.stderr)


def show(model: str, sources: Sequence[str], trained: dict[str, list[Rate]], alone: dict[str, list[Rate]]) -> None:
    """Prints the table of a model."""
    rows = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for source in sources:
        rate, reading = (Spread.of(one.rows_per_second for one in rates[source]) for rates in (trained, alone))
        cpu, reading_cpu = (Spread.of(one.cpu_us for one in rates[source]) for rates in (trained, alone))
        reading_parquet = Spread.of(one.cpu_us for one in alone["Parquet"]).median
        shares = []
        for step, parquet in zip(trained[source], trained["Parquet"], strict=True):
            cpu_bound = cores * 1e6 / (parquet.cpu_us - reading_parquet + reading_cpu.median)
            shares.append(step.rows_per_second / min(cpu_bound, reading.median))
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
