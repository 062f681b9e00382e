"""Builders of the same rows in every format."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from easyrec_lite.inputs import Ragged, RawBatch
from easyrec_lite.protos import data_pb2

Rows = list[dict[str, Any]]
FORMATS = ("csv", "csv_header", "csv_gz", "csv_multi", "parquet", "frame")


def data_config(**options: Any) -> data_pb2.DatasetConfig:
    """A config of three fields: an int64 with default -1, a float and a string with default "none"."""
    config = data_pb2.DatasetConfig(**options)
    config.input_fields.add(input_name="id", input_type="INT64", default_val="-1")
    config.input_fields.add(input_name="price", input_type="FLOAT")
    config.input_fields.add(input_name="word", input_type="STRING", default_val="none")
    return config


def write(kind: str, folder: Path, parts: list[Rows]) -> tuple[data_pb2.DatasetConfig, Any]:
    """Writes the rows, one file a part (a frame has all parts), and says how to open them."""
    if kind == "frame":
        rows = [row for part in parts for row in part]
        return data_config(), pd.DataFrame(rows, columns=["id", "price", "word"])
    if kind == "parquet":
        schema = pa.schema({"id": pa.int64(), "price": pa.float64(), "word": pa.string()})
        for index, part in enumerate(parts):
            pq.write_table(pa.Table.from_pylist(part, schema), folder / f"part-{index}.parquet", row_group_size=7)
        return data_config(input_type="ParquetInput"), str(folder / "part-*.parquet")
    separator = {"csv_multi": "||", "csv_gz": "\001"}.get(kind, ",")
    for index, part in enumerate(parts):
        lines = ["id,price,word".replace(",", separator)] if kind == "csv_header" else []
        for row in part:
            cells = ["" if row[name] is None else str(row[name]) for name in ("id", "price", "word")]
            lines.append(separator.join(cells))
        text = "".join(line + "\n" for line in lines).encode()
        if kind == "csv_gz":
            (folder / f"part-{index}.csv.gz").write_bytes(gzip.compress(text))
        else:
            (folder / f"part-{index}.csv").write_bytes(text)
    ending = "csv.gz" if kind == "csv_gz" else "csv"
    input_type = "CSVInputEx" if kind == "csv_multi" else "CSVInput"
    config = data_config(input_type=input_type, separator=separator, with_header=kind == "csv_header")
    return config, str(folder / f"part-*.{ending}")


def to_lists(batch: RawBatch) -> dict[str, list[Any]]:
    """The columns of a batch as Python lists."""
    lists: dict[str, list[Any]] = {}
    for name, column in batch.columns.items():
        if isinstance(column, Ragged):
            values = column.values.tolist()
            lists[name] = [values[a:b] for a, b in zip(column.row_splits[:-1], column.row_splits[1:], strict=True)]
        else:
            lists[name] = column.tolist()
    return lists


def to_rows(batches: list[RawBatch]) -> list[tuple[Any, ...]]:
    """The rows of batches as tuples."""
    return [row for batch in batches for row in zip(*to_lists(batch).values(), strict=True)]
