from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from input_rows import to_lists

from easyrec_lite.config import ConfigError
from easyrec_lite.inputs import BadRows, InputError, Ragged, WindowedSource, open_source
from easyrec_lite.inputs import parquet as parquet_module
from easyrec_lite.protos import data_pb2


def parquet(folder: Path, columns: dict[str, pa.Array], **fields: dict[str, Any]) -> WindowedSource:
    pq.write_table(pa.table(columns), folder / "a.parquet", row_group_size=2)
    config = data_pb2.DatasetConfig(input_type="ParquetInput")
    for name, options in fields.items():
        config.input_fields.add(input_name=name, **options)
    return open_source(
        config, folder / "a.parquet", columns=list(columns), shuffle=False, bad_rows=BadRows(max_share=1)
    )


def read(source: WindowedSource) -> dict[str, list[Any]]:
    (batch,) = source.read()
    return to_lists(batch)


UTC = datetime.UTC
MOMENT = datetime.datetime(1969, 12, 31, 23, 59, 58, 500_000)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None, -3], pa.int8()), [1, 0, -3]),
        (pa.array([1, 2], pa.uint32()), [1, 2]),
        (pa.array([True, False, None]), [1, 0, 0]),
        (pa.array([0.5, None, float("nan")], pa.float64()), [0.5, 0, 0]),
        (pa.array([0.5], pa.float16()), [0.5]),
        (pa.array([decimal.Decimal("2.50"), None]), [2.5, 0]),
        (pa.array(["a", None, ""]), ["a", "", ""]),
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", "", "b"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array([b"a", None]), ["a", ""]),
        (pa.array([None, None]), ["", ""]),
        (pa.array([MOMENT, None]), [-2, 0]),
        (pa.array([MOMENT], pa.timestamp("ms", "Europe/Paris")), [-2]),
        (pa.array([datetime.date(1970, 1, 3)]), [2 * 86400]),
        (pa.array([[1, 2], [], None, [None]]), [[1, 2], [], [], [0]]),
        (pa.array([["a"], ["b", "c"]], pa.large_list(pa.string())), [["a"], ["b", "c"]]),
        (pa.array([[0.5, 1.5], None], pa.list_(pa.float32(), 2)), [[0.5, 1.5], []]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_types_are_inferred_from_the_schema(tmp_path: Path, array: pa.Array, expected: list[Any]) -> None:
    assert read(parquet(tmp_path, {"x": array})) == {"x": expected}


def test_declared_types_override_the_schema(tmp_path: Path) -> None:
    columns = {
        "as_text": pa.array([1, None, 3]),
        "as_int": pa.array(["7", " 8", None]),
        "whole": pa.array([1.0, None, 3.0]),
        "as_float": pa.array([1, 2, 3]),
        "lists": pa.array([["1", "2"], None, ["3"]]),
        "flag": pa.array([0, 5, 1]),
    }
    fields: dict[str, dict[str, Any]] = {
        "as_text": {"input_type": "STRING", "default_val": "?"},
        "as_int": {"input_type": "INT32", "default_val": "9"},
        "whole": {"input_type": "INT64", "ignore_val": "3"},
        "as_float": {"input_type": "DOUBLE"},
        "lists": {"input_type": "INT64", "ignore_val": "1"},
        "flag": {"input_type": "BOOL"},
    }
    source = parquet(tmp_path, columns, **fields)
    (batch,) = source.read()
    assert to_lists(batch) == {
        "as_text": ["1", "?", "3"],
        "as_int": [7, 8, 9],
        "whole": [1, 0, 0],
        "as_float": [1.0, 2.0, 3.0],
        "lists": [[2], [], [3]],
        "flag": [0, 1, 1],
    }
    assert batch.missing == {"as_text": 1, "as_int": 1, "whole": 2, "lists": 1}
    lists = batch.columns["lists"]
    assert isinstance(lists, Ragged)
    assert lists.row_splits.dtype == np.int64


def test_bad_cells_cost_their_row(tmp_path: Path) -> None:
    columns = {
        "id": pa.array([1, 2, 3, 4, 2**63], pa.uint64()),
        "f": pa.array([0.5, float("inf"), 1, 1e300, 1]),
        "l": pa.array([["1"], ["1"], ["2", "x"], [], []]),
        "b": pa.array([b"a", b"b", b"c", b"d", b"\xff"]),
    }
    source = parquet(tmp_path, columns, l={"input_type": "INT64"})
    assert read(source) == {"id": [1], "f": [0.5], "l": [[1]], "b": ["a"]}
    assert [line.split(".parquet:")[1] for line in source.peek(9).bad] == [
        "2: column 'f': 'inf' is not a finite number",
        "3: column 'l': \"['2', 'x']\" is not a whole number (INT64)",
        "4: column 'f': '1e+300' is not a finite number",
        "5: column 'id': '9223372036854775808' is not a whole number (INT64), a type inferred from the data; declare "
        "another in data_config.input_fields",
    ]


@pytest.mark.parametrize("type_", [pa.struct({"a": pa.int64()}), pa.list_(pa.list_(pa.int64())), pa.time32("s")])
def test_types_that_are_not_columns_of_a_table(tmp_path: Path, type_: pa.DataType) -> None:
    with pytest.raises(ConfigError, match=r"input_fields\[x\]: found .* in .*a.parquet"):
        parquet(tmp_path, {"x": pa.nulls(2, type_)})


def test_lists_are_shuffled_and_sliced_with_their_rows(tmp_path: Path) -> None:
    rows = [[*range(i % 4), i] if i % 5 else None for i in range(50)]
    pq.write_table(pa.table({"i": range(50), "l": pa.array(rows)}), tmp_path / "a.parquet", row_group_size=9)
    config = data_pb2.DatasetConfig(shuffle_window=13, shuffle_buffer_size=1)
    source = open_source(config, tmp_path / "a.parquet", batch_size=4)
    lists = [to_lists(batch) for batch in source.read()]
    seen = {i: row for batch in lists for i, row in zip(batch["i"], batch["l"], strict=True)}
    assert seen == {i: row or [] for i, row in enumerate(rows)}
    assert sum(batch.missing.get("l", 0) for batch in source.read()) == 10


def test_resuming_parquet_reads_no_earlier_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"i": range(100)}), tmp_path / "a.parquet", row_group_size=10)
    monkeypatch.setattr(parquet_module, "_BLOCK_ROWS", 10)
    config = data_pb2.DatasetConfig(shuffle_window=10, shuffle_buffer_size=1)
    source = open_source(config, tmp_path / "a.parquet", batch_size=32, shuffle=False)
    first = next(source.read())
    groups: list[list[int]] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, *args: Any, **options: Any) -> Any:
        groups.append(options["row_groups"])
        return original(self, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    assert to_lists(next(source.read(first.position)))["i"][0] == 32
    assert groups[0] == list(range(3, 10))


def test_damaged_and_foreign_parquet_files(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"i": range(10_000)}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"a.parquet: found a file that can't be read as Parquet .*; expected a whole"):
        open_source(data_pb2.DatasetConfig(), path)
    path.write_text("i\n1\n")
    with pytest.raises(InputError, match="can't be read as Parquet"):
        open_source(data_pb2.DatasetConfig(), path)
    damaged = bytearray(whole)
    damaged[4:200] = b"\xff" * 196
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="can't be read as Parquet"):
        list(open_source(data_pb2.DatasetConfig(), path).read())


def test_files_of_different_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"i": [1], "x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"i": [1], "y": [1]}), tmp_path / "b.parquet")
    assert open_source(data_pb2.DatasetConfig(), str(tmp_path / "*.parquet"), columns=["i"]).num_rows == 2
    with pytest.raises(InputError, match=r"b.parquet: found no column 'x'; expected the columns of .*a.parquet"):
        open_source(data_pb2.DatasetConfig(), str(tmp_path / "*.parquet"))
    pq.write_table(pa.table({"i": [1], "x": [[1]]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b.parquet: found list<.*> in column 'x'; expected single values"):
        open_source(data_pb2.DatasetConfig(), str(tmp_path / "*.parquet"))


def test_frames(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "i": [1, 2],
            "f": [0.5, np.nan],
            "s": ["a", None],
            "c": pd.Categorical(["u", "v"]),
            "t": pd.to_datetime(["1970-01-02", None]),
            "l": [[1, 2], None],
            "a": [np.array(["x"]), np.array([], object)],
            "n": pd.array([1, None], "Int64"),
        },
        index=[7, 7],
    )
    source = open_source(data_pb2.DatasetConfig(), frame, shuffle=False)
    assert read(source) == {
        "i": [1, 2],
        "f": [0.5, 0.0],
        "s": ["a", ""],
        "c": ["u", "v"],
        "t": [86400, 0],
        "l": [[1, 2], []],
        "a": [["x"], []],
        "n": [1, 0],
    }
    assert source.num_rows == 2


def test_frames_that_can_not_be_read() -> None:
    with pytest.raises(InputError, match=r"column 'x': found mixed types .*astype\(str\)"):
        open_source(data_pb2.DatasetConfig(), pd.DataFrame({"x": [1, "a"]}))
    with pytest.raises(InputError, match="no rows"):
        open_source(data_pb2.DatasetConfig(), pd.DataFrame({"x": []}))
    twice = pd.DataFrame([[1, 2]], columns=["x", "x"])
    with pytest.raises(ConfigError, match="has 2 times"):
        open_source(data_pb2.DatasetConfig(), twice)
