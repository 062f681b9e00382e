"""Measures reading alone: rows a second and CPU time a row, by format, through `as_dataset`.

    python tools/bench/inputs.py [--rows 400000] [--batch-size 4096] [--formats csv parquet_numbers]

Rows have 12 int64 and 8 float columns beside, by format:

* csv, csv_gz: 8 columns of text, all of them as text in the file;
* parquet_numbers, frame: two columns of int64 lists of 0 to 20 values;
* parquet_text: 8 columns of text.

CPU time is that of the whole process over all threads, while nothing else is done with the batches.
"""

from __future__ import annotations

import argparse
import gzip
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from easyrec_lite.inputs import Source, as_dataset, open_source
from easyrec_lite.protos import data_pb2


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
    table = pa.table(numbers(rows, rng) | lists(rows, rng)).to_pandas()
    return open_source(data_pb2.DatasetConfig(), table, batch_size=batch_size)


FORMATS: dict[str, Callable[[Path, int, np.random.Generator, int], Source]] = {
    "csv": csv,
    "csv_gz": csv_gz,
    "parquet_numbers": parquet_numbers,
    "parquet_text": parquet_text,
    "frame": frame,
}


def measure(source: Source) -> tuple[float, float, float]:
    """Rows a second, CPU microseconds a row, and CPU milliseconds a batch; the second pass over the data counts."""
    dataset = as_dataset(source)
    for _ in dataset:
        pass
    rows = batches = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for columns, _ in dataset:
        rows, batches = rows + int(columns["i0"].shape[0]), batches + 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return rows / wall, cpu / rows * 1e6, cpu / batches * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    options = parser.parse_args()
    table = Table(
        "format", "rows/s", "CPU us/row", "CPU ms/batch", title=f"{options.rows} rows, batch {options.batch_size}"
    )
    for name in options.formats:
        with tempfile.TemporaryDirectory() as folder:
            source = FORMATS[name](Path(folder), options.rows, np.random.default_rng(0), options.batch_size)
            speed, row, batch = measure(source)
        table.add_row(name, f"{speed:,.0f}", f"{row:.2f}", f"{batch:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
