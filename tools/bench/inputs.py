"""Reading alone: rows a second and CPU time a row, by format, through `as_dataset`.

    python -m tools.bench.inputs [--rows 400000] [--formats csv parquet_numbers] [--rounds 5]

Rows have 12 int64 and 8 float columns beside, by format:

* csv, csv_gz: 8 columns of text, all of them as text in the file;
* parquet_numbers, frame: two columns of int64 lists of 0 to 20 values;
* parquet_text: 8 columns of text.

CPU time is that of the whole process over all threads, while nothing else is done with the batches. The formats are
read in turn, once to warm up and then `--rounds` times; medians with quartiles.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import tensorflow as tf

from easyrec_lite.inputs import Source, as_dataset, open_source
from easyrec_lite.protos import data_pb2
from easyrec_lite.terminal import main_guard, table
from tools.bench import _common


def numbers(rows: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    ints = {f"i{k}": pa.array(rng.integers(0, 10**6, rows)) for k in range(12)}
    floats = {f"f{k}": pa.array(rng.random(rows).round(4)) for k in range(8)}
    return ints | floats


def text(rows: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    return {f"s{k}": pa.array(rng.integers(0, 10**6, rows)).cast(pa.string()) for k in range(8)}


def lists(rows: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    columns = {}
    for k in range(2):
        splits = np.concatenate([[0], np.cumsum(rng.integers(0, 21, rows))])
        values = pa.array(rng.integers(0, 10**6, splits[-1]))
        columns[f"l{k}"] = pa.ListArray.from_arrays(pa.array(splits, pa.int32()), values)
    return columns


def csv(folder: Path, rows: int, rng: np.random.Generator, batch_size: int, *, pack: bool = False) -> Source:
    columns = numbers(rows, rng) | text(rows, rng)
    path = folder / "rows.csv"
    pa_csv.write_csv(pa.table(columns), path, pa_csv.WriteOptions(include_header=False, quoting_style="none"))
    if pack:
        (folder / "rows.csv.gz").write_bytes(gzip.compress(path.read_bytes(), 6))
        path = folder / "rows.csv.gz"
    config = data_pb2.DatasetConfig(input_type="CSVInput")
    for name in columns:
        config.input_fields.add(input_name=name, input_type={"i": "INT64", "f": "FLOAT", "s": "STRING"}[name[0]])
    return open_source(config, path, batch_size=batch_size)


def csv_gz(folder: Path, rows: int, rng: np.random.Generator, batch_size: int) -> Source:
    return csv(folder, rows, rng, batch_size, pack=True)


def parquet_numbers(folder: Path, rows: int, rng: np.random.Generator, batch_size: int) -> Source:
    pq.write_table(pa.table(numbers(rows, rng) | lists(rows, rng)), folder / "numbers.parquet")
    return open_source(data_pb2.DatasetConfig(), folder / "numbers.parquet", batch_size=batch_size)


def parquet_text(folder: Path, rows: int, rng: np.random.Generator, batch_size: int) -> Source:
    pq.write_table(pa.table(numbers(rows, rng) | text(rows, rng)), folder / "text.parquet")
    return open_source(data_pb2.DatasetConfig(), folder / "text.parquet", batch_size=batch_size)


def frame(folder: Path, rows: int, rng: np.random.Generator, batch_size: int) -> Source:
    rows_in_memory = pa.table(numbers(rows, rng) | lists(rows, rng)).to_pandas()
    return open_source(data_pb2.DatasetConfig(), rows_in_memory, batch_size=batch_size)


FORMATS: dict[str, Callable[[Path, int, np.random.Generator, int], Source]] = {
    "csv": csv,
    "csv_gz": csv_gz,
    "parquet_numbers": parquet_numbers,
    "parquet_text": parquet_text,
    "frame": frame,
}


class Pass(NamedTuple):
    """One reading of all rows."""

    rows: int
    batches: int
    seconds: float
    cpu_seconds: float


def read(dataset: tf.data.Dataset) -> Pass:
    """Reads all rows once."""
    rows = batches = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for columns, _ in dataset:
        rows, batches = rows + int(columns["i0"].shape[0]), batches + 1
    return Pass(rows, batches, time.perf_counter() - wall, time.process_time() - cpu)


class Result(NamedTuple):
    """What reading a format takes."""

    format: str
    rows_per_second: _common.Spread
    cpu_us_per_row: _common.Spread
    cpu_ms_per_batch: _common.Spread


def measure_all(formats: Sequence[str], rows: int, batch_size: int, rounds: int) -> list[Result]:
    """Reads the formats in turn."""
    with tempfile.TemporaryDirectory() as folder:
        datasets = {}
        for name in formats:
            own = Path(folder, name)
            own.mkdir()
            datasets[name] = as_dataset(FORMATS[name](own, rows, np.random.default_rng(0), batch_size))
            read(datasets[name])
        passes = [{name: read(dataset) for name, dataset in datasets.items()} for _ in range(rounds)]
    return [
        Result(
            name,
            _common.Spread.of(one[name].rows / one[name].seconds for one in passes),
            _common.Spread.of(one[name].cpu_seconds / one[name].rows * 1e6 for one in passes),
            _common.Spread.of(one[name].cpu_seconds / one[name].batches * 1e3 for one in passes),
        )
        for name in formats
    ]


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _common.parser("inputs", __doc__)
    parser.add_argument("--rows", type=int, default=400_000, metavar="N")
    parser.add_argument("--batch_size", type=int, default=4096, metavar="N")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--rounds", type=int, default=5, help="readings of each format")
    flags = parser.parse_args(argv)
    results = measure_all(flags.formats, flags.rows, flags.batch_size, flags.rounds)
    columns = ("format", "thousand rows/s", "CPU us/row", "CPU ms/batch")
    lines = [
        (one.format, one.rows_per_second.scaled(1e-3).text(0), one.cpu_us_per_row.text(), one.cpu_ms_per_batch.text(1))
        for one in results
    ]
    table(f"Reading {flags.rows:,} rows in batches of {flags.batch_size:,}, median (quartiles)", columns, lines)
    _common.keep(flags.json, "inputs", [one._asdict() for one in results])
    return 0


if __name__ == "__main__":
    sys.exit(main())
