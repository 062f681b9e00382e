from __future__ import annotations

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest
from input_rows import data_config, to_rows

from easyrec_lite.inputs import BadRows, InputError, WindowedSource, open_source
from easyrec_lite.inputs import text as text_module
from easyrec_lite.inputs.position import Tally
from easyrec_lite.protos import data_pb2


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def make(folder: Path, bad: BadRows, text: str, **options: object) -> WindowedSource:
    (folder / "a.csv").write_text(text)
    config = data_config(input_type="CSVInput", shuffle_window=7)
    return open_source(config, folder / "a.csv", bad_rows=bad, **options)  # type: ignore[arg-type]


def test_kept_rows_hold_line_reason_and_text(tmp_path: Path) -> None:
    path = tmp_path / "out" / "bad_rows.jsonl"
    source = make(tmp_path, BadRows(path, max_share=1), "1,1,a\n2,x,é\n3,1\n", columns=["price"])
    list(source.read())
    file = str(tmp_path / "a.csv")
    assert records(path) == [
        {
            "file": file,
            "line": 2,
            "reason": "is not a finite number",
            "column": "price",
            "value": "x",
            "cells": {"price": "x"},
            "text": "2,x,é",
        },
        {"file": file, "line": 3, "reason": "2 columns, expected 3", "text": "3,1"},
    ]


@pytest.mark.parametrize(("ending", "type_"), [("csv", "INT64"), ("csv", "DOUBLE"), ("parquet", "INT64")])
def test_event_times_in_milliseconds_are_unusable(tmp_path: Path, ending: str, type_: str) -> None:
    frame = pd.DataFrame({"ts": [1_700_000_000, 1_700_001_000_000, 4_102_444_799, 4_102_444_800, 0]})
    config = data_pb2.DatasetConfig(event_time_field="ts", with_header=True)
    config.input_fields.add(input_name="ts", input_type=data_pb2.DatasetConfig.FieldType.Value(type_))
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    bad = BadRows(tmp_path / "bad.jsonl", max_share=1)
    rows = to_rows(list(open_source(config, tmp_path / f"a.{ending}", shuffle=False, bad_rows=bad).read()))
    late = 4_102_444_799 if type_ == "INT64" else None  # as float32 it is rounded up to the year 2100
    assert [time for (time,) in rows] == [time for time in (1_700_000_000, late, 0) if time is not None]
    found = records(tmp_path / "bad.jsonl")[0]
    reason = f"is not a time before the year 2100 in seconds since 1970 ({type_}); milliseconds are too large"
    assert (found["column"], found["reason"]) == ("ts", reason)
    config.event_time_field = ""  # of other columns any number is one
    assert open_source(config, tmp_path / f"a.{ending}", columns=["ts"]).columns["ts"].event_time is False


def test_private_values_appear_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = data_config(input_type="CSVInput", max_bad_row_share=0.2)
    config.input_fields[1].private = True
    (tmp_path / "a.csv").write_text("7,s3cret,a\n8,s3cret\nx,77.5,b\n9,88.5,b\n")
    path = tmp_path / "bad.jsonl"
    source = open_source(config, tmp_path / "a.csv", shuffle=False, bad_rows=BadRows.from_config(config, path))
    with pytest.raises(InputError, match="3 unusable rows among 4") as caught:
        list(source.read())
    peeked = source.peek(5)
    everything = path.read_text() + caplog.text + str(caught.value) + str(peeked)
    assert not [value for value in ("s3cret", "77.5", "88.5") if value in everything]
    assert records(path)[0]["value"] == "***"
    assert records(path)[2]["cells"] == {"id": "x", "price": "***", "word": "b"}
    assert peeked.rows == [{"id": 9, "price": "***", "word": "b"}]


def test_rows_of_a_frame_are_kept_by_number(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["1", "x", "3"], "price": [1.0, 2.0, float("inf")], "word": ["a", "b", "c"]})
    bad = BadRows(tmp_path / "bad.jsonl", max_share=1)
    assert to_rows(list(open_source(data_config(), frame, shuffle=False, bad_rows=bad).read())) == [(1, 1.0, "a")]
    assert [(row["line"], row["column"], row["value"]) for row in records(tmp_path / "bad.jsonl")] == [
        (2, "id", "x"),
        (3, "price", "inf"),
    ]


def test_too_large_a_share_ends_the_run_at_the_end_of_the_data(tmp_path: Path) -> None:
    text = "1,1,a\n" * 98 + "x,1,a\n" * 2
    assert sum(batch.rows for batch in make(tmp_path, BadRows(max_share=0.02), text).read()) == 98
    source = make(tmp_path, BadRows(tmp_path / "bad.jsonl", max_share=0.01), text)
    with pytest.raises(InputError) as caught:
        list(source.read())
    assert str(caught.value) == (
        f"data_config.max_bad_row_share: found 2 unusable rows among 100 (2.00%); the last one: {tmp_path}/a.csv:100: "
        "column 'id': 'x' is not a whole number (INT64); expected at most 1.00%. "
        f"Mend the rows, they are in {tmp_path}/bad.jsonl, or raise max_bad_row_share."
    )


def test_too_large_a_share_ends_the_run_early_after_enough_rows() -> None:
    bad = BadRows(max_share=0.5, min_rows=10)
    row = open_rows_fault()
    bad.add(9, [row] * 9)
    with pytest.raises(InputError, match="9 unusable rows among 10"):
        bad.add(1, [])


def open_rows_fault() -> object:
    from easyrec_lite.inputs import BadRow

    return BadRow("f", 1, "2 columns, expected 3")


def test_ignore_error_tolerates_any_share(tmp_path: Path) -> None:
    config = data_pb2.DatasetConfig(ignore_error=True)
    assert BadRows.from_config(config).max_share == 1.0
    assert BadRows.from_config(data_pb2.DatasetConfig()).max_share == pytest.approx(0.01)


def test_only_the_first_epoch_writes_and_keep_bounds_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    source = make(tmp_path, BadRows(path, max_share=1, keep=3), "x,1,a\n1,1,a\n" * 5, epochs=3)
    list(source.read())
    assert source.bad_rows.tally == Tally(rows=30, bad=15, kept=3)
    assert len(records(path)) == 3


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("block", [20, 64, 1 << 20])
@pytest.mark.parametrize("stop", [1, 2, 5, 11])
def test_resuming_counts_and_writes_as_if_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffle: bool, block: int, stop: int
) -> None:
    monkeypatch.setattr(text_module, "_BLOCK_BYTES", block)
    text = "".join(f"{i},1,a\n" if i % 4 else f"{i},x,a\n" for i in range(60))
    options: dict[str, object] = {"batch_size": 8, "epochs": 2, "shuffle": shuffle}
    whole = make(tmp_path, BadRows(tmp_path / "whole.jsonl", max_share=1), text, **options)
    batches = list(whole.read())
    path = tmp_path / "stopped.jsonl"
    stopped = make(tmp_path, BadRows(path, max_share=1), text, **options)
    *_, last = itertools.islice(stopped.read(), stop)
    resumed = make(tmp_path, BadRows(path, max_share=1), text, **options)
    assert to_rows(list(resumed.read(last.position))) == to_rows(batches[stop:])
    assert resumed.bad_rows.tally == whole.bad_rows.tally == Tally(120, 30, 15)
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text()


def test_starting_anew_empties_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"line": 1}\n{"line": 2}\n{"li')
    bad = BadRows(path)
    bad.rewind(Tally(10, 2, 2))
    assert path.read_text() == '{"line": 1}\n{"line": 2}\n'
    bad.rewind(Tally())
    assert path.read_text() == ""
