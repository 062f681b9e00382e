from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from messages import decode_as

from easyrec_lite.inputs.messages import Decoded
from easyrec_lite.protos import data_pb2

FIELDS = {"user": "INT64", "price": "FLOAT", "city": "STRING", "hist": "INT64s", "tags": "STRINGs"}


def decode(values: list[bytes | None], required: tuple[str, ...] = (), **fields: str) -> Decoded:
    return decode_as(data_pb2.KafkaServer.ARROW, values, required, **(fields or FIELDS))


def stream(*batches: pa.RecordBatch, compression: str | None = None, schema: pa.Schema | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, schema or batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def batch(rows: list[dict[str, Any]] | None = None, **types: pa.DataType) -> pa.RecordBatch:
    usual = {
        "user": pa.int64(),
        "price": pa.float32(),
        "city": pa.string(),
        "hist": pa.list_(pa.int64()),
        "tags": pa.list_(pa.string()),
    }
    return pa.RecordBatch.from_pylist(ROWS if rows is None else rows, pa.schema(list({**usual, **types}.items())))


ROWS: list[dict[str, Any]] = [
    {"user": 2**40, "price": 0.5, "city": "a", "hist": [1, 2], "tags": ["x"]},
    {"user": None, "price": None, "city": None, "hist": None, "tags": None},
    {"user": -3, "price": 2.0, "city": "é", "hist": [], "tags": ["y", "z"]},
]


def test_all_batches_of_a_stream_are_its_rows() -> None:
    one = batch()
    decoded = decode([stream(one, one.slice(0, 0), one), stream(one.slice(2)), stream(one, one.slice(1))])
    assert decoded.counts.tolist() == [6, 1, 5]
    assert decoded.rows.to_pylist() == [*ROWS, *ROWS, ROWS[2], *ROWS, *ROWS[1:]]
    assert decoded.message.tolist() == [0] * 6 + [1] + [2] * 5
    assert decoded.row.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers(compression: str) -> None:
    many = batch(ROWS * 500)
    value = stream(many, compression=compression)
    assert len(value) < len(stream(many)) / 2
    assert decode([value]).rows.to_pylist() == ROWS * 500


def test_schemas_may_differ() -> None:
    words = pa.dictionary(pa.int8(), pa.string())
    small = [{**row, "user": at} for at, row in enumerate(ROWS)]
    nested = batch(ROWS).append_column("more", pa.array([{"a": 1}] * 3))
    values = [
        stream(batch()),
        stream(
            batch(small, user=pa.uint8(), price=pa.float64(), city=pa.large_string(), hist=pa.large_list(pa.int16()))
        ),
        stream(batch(city=words, tags=pa.list_(words))),
        stream(batch().select(["tags", "hist", "price", "user", "city"])),
        stream(nested),
        stream(batch().select(["user", "city"])),
        stream(batch(small[:1], city=pa.string_view(), hist=pa.list_(pa.int8(), 2))),
        stream(batch([{"user": 1}], price=pa.null(), city=pa.null(), hist=pa.null())),
        stream(batch([{"user": 2**63 - 1, "price": 3}], user=pa.decimal128(19), price=pa.int8())),
        stream(batch()),
    ]
    less = [{**row, "price": None, "hist": None, "tags": None} for row in ROWS]
    empty: dict[str, Any] = dict.fromkeys(FIELDS)
    expected = [*ROWS, *small, *ROWS, *ROWS, *ROWS, *less, small[0], {**empty, "user": 1}]
    expected += [{**empty, "user": 2**63 - 1, "price": 3.0}, *ROWS]
    decoded = decode(list(values))
    assert not decoded.bad
    assert decoded.rows.to_pylist() == expected
    assert decoded.counts.tolist() == [3, 3, 3, 3, 3, 3, 1, 1, 1, 3]


def test_dictionaries_of_many_messages_together_are_too_many_for_their_indices() -> None:
    words = pa.dictionary(pa.int8(), pa.string())
    parts = [[{"city": f"{part} {at}", "tags": [f"{part} {at}"]} for at in range(100)] for part in range(5)]
    decoded = decode([stream(batch(part, city=words, tags=pa.list_(words))) for part in parts])
    assert decoded.rows.column("city").to_pylist() == [row["city"] for part in parts for row in part]
    assert decoded.rows.column("tags").to_pylist() == [row["tags"] for part in parts for row in part]


def test_columns_that_do_not_fit() -> None:
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["user", "user"])
    values = [
        stream(batch([{"user": "5"}, {"user": "x"}], user=pa.string())),
        stream(batch([{"user": [1]}], user=pa.list_(pa.int64()))),
        stream(batch([{"hist": 1}], hist=pa.int64())),
        stream(batch([{"hist": [[1]]}], hist=pa.list_(pa.list_(pa.int64())))),
        stream(twice),
        stream(batch([{"user": 6}, {"user": 2**32, "city": "a"}], city=pa.string_view())),
    ]
    decoded = decode(list(values), user="INT32", price="FLOAT", city="STRING", hist="INT64s")
    assert decoded.rows.column("user").to_pylist() == [5, 6]
    assert [(one.message, one.row, one.column, one.reason) for one in decoded.bad] == [
        (0, 1, "user", "is not a whole number (INT32)"),
        (1, None, "user", "holds list<item: int64>, expected single values"),
        (2, None, "hist", "holds int64, expected lists"),
        (3, None, "hist", "holds list<item: list<item: int64>>, expected lists"),
        (4, None, "user", "is there more than once"),
        (5, 1, "user", "is not a whole number (INT32)"),
    ]


def test_streams_that_hold_nothing_or_too_much() -> None:
    one = batch()
    nothing = pa.RecordBatch.from_arrays([pa.nulls(10**9)], names=["city"])
    values = [stream(schema=one.schema), stream(one.slice(0, 0)), stream(nothing), stream(one) * 2, stream(one)]
    decoded = decode(list(values))
    assert [one.reason for one in decoded.bad] == [
        "a stream without rows",
        "a stream without rows",
        "more rows than bits",
        "bytes after the end of the Arrow IPC stream",
    ]
    assert decoded.rows.to_pylist() == ROWS


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_what_a_message_says_does_not_depend_on_those_before_it(compression: str | None) -> None:
    """The schema of the messages before is not read again; of each cut and each changed byte the same becomes."""
    sound = stream(batch(), batch(ROWS[:1]), compression=compression)
    values = [sound[:size] for size in range(1, len(sound))]
    values += [sound[:at] + bytes([sound[at] ^ 0x41]) + sound[at + 1 :] for at in range(len(sound))]
    together = decode([sound, *values])
    for number, value in enumerate(values, 1):
        alone = decode([value])
        assert together.counts[number] == alone.counts[0], number
        low, high = np.searchsorted(together.message, (number, number + 1))
        assert together.rows.slice(low, high - low).equals(alone.rows), number
        assert [one.reason for one in together.bad if one.message == number] == [one.reason for one in alone.bad]


def test_numbers_of_another_machine() -> None:
    """A stream whose schema says that its bytes are in the other order is read as such, the first and the second."""
    here = stream(pa.RecordBatch.from_pylist([{"user": 1}, {"user": 2}], pa.schema([("user", pa.int64())])))
    # Of the schema's table, which has two slots, the first (the order of bytes) now lies where a 1 (big-endian) is.
    there = here.replace(bytes.fromhex("0800 0800 0000 0400"), bytes.fromhex("0800 0800 0800 0400"), 1)
    assert pa.ipc.open_stream(there).read_all()["user"].to_pylist() == [2**56, 2**57]
    decoded = decode([here, there, there, here], user="INT64")
    assert decoded.rows["user"].to_pylist() == [1, 2, 2**56, 2**57, 2**56, 2**57, 1, 2]


def test_times_far_off_are_no_reason_to_fail() -> None:
    far = 2**31 - 1
    days = pa.array([far, 0, far], pa.int32()).cast(pa.date32())
    milliseconds = pa.array([far * 86_400_000, -86_400_000, far * 86_400_000]).cast(pa.date64())
    rows = pa.RecordBatch.from_arrays([days, milliseconds, pa.array([1, 2, None])], names=["d", "m", "clk"])
    decoded = decode([stream(rows)], ("clk",), d="INT64", m="INT64", clk="INT64")
    assert decoded.rows.to_pylist() == [
        {"d": far * 86_400, "m": far * 86_400, "clk": 1},
        {"d": 0, "m": -86_400, "clk": 2},
    ]
    assert decoded.bad[0].cells == {"d": "<date32[day]>", "m": "<date64[ms]>", "clk": None}


def test_bytes_that_changed_never_end_the_process() -> None:
    words = pa.dictionary(pa.int8(), pa.string())
    sound = [
        stream(batch()),
        stream(batch(city=words, tags=pa.list_(words))),
        stream(batch(ROWS * 50), compression="lz4"),
        stream(batch(ROWS * 50), compression="zstd"),
    ]
    dice = random.Random(4)
    values: list[bytes | None] = []
    for _ in range(600):
        changed = bytearray(dice.choice(sound))
        for _ in range(dice.choice([1, 1, 2, 8])):
            changed[dice.randrange(len(changed))] = dice.choice([0, 0xFF, dice.randrange(256)])
        values += [bytes(changed), sound[0]]
    decoded = decode(values, ("price",))
    assert (decoded.counts[1::2] == 3).all()
    assert [row for row, at in zip(decoded.rows.to_pylist(), decoded.message, strict=True) if at % 2] == [
        ROWS[0],
        ROWS[2],
    ] * 600
