"""Rows to send to Kafka, and a strict reader of every format that they are sent in."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.proto import parse_length_prefixed

DAY = 86_400
START = 1_704_067_200
COLUMNS = ("user_id", "city", "price", "hist", "event_time", "clk", "row")


def make_rows(count, seed=0):
    random = np.random.default_rng(seed)
    lists = [random.integers(1, 99, length).tolist() for length in random.integers(0, 4, count)]
    return pa.table(
        {
            "user_id": pa.array(random.integers(1, 40, count)),
            "city": pa.array([None if at % 7 == 3 else f"ci,ty{at % 5}" for at in range(count)]),
            "price": pa.array(random.uniform(0, 9, count), pa.float32()),
            "hist": pa.array(lists, pa.list_(pa.int64())),
            "event_time": pa.array(START + np.sort(random.integers(0, DAY, count))),
            "clk": pa.array(random.integers(0, 2, count), pa.int32()),
            "row": pa.array(np.arange(count)),
        }
    )


def plain(row):
    """A row as the readers below return it."""
    return {
        **row,
        "city": row["city"] or "",
        "price": pytest.approx(row["price"], rel=1e-6),
        "hist": row["hist"] or [],
    }


def checked(row):
    """The row, if its columns are there and of their types."""
    assert set(row) == set(COLUMNS), "columns"
    for name in ("user_id", "event_time", "clk", "row"):
        value = row[name]
        assert type(value) is int, f"{name} is no whole number"
        assert -(2**63) <= value < 2**63, f"{name} is out of range"
    assert isinstance(row["price"], float)
    return row


def read(name, per_message, message):
    assert message is not None, "no value"
    return [checked(row) for row in globals()[f"read_{name}"](message, per_message)]


def read_csv(message, _):
    cells = list(csv.reader(io.StringIO(message.decode("utf-8")), strict=True))
    assert cells, "no row"
    return [
        {
            "user_id": int(user),
            "city": city,
            "price": float(price),
            "hist": [int(item) for item in hist.split("|") if item],
            "event_time": int(event_time),
            "clk": int(clk),
            "row": int(row),
        }
        for user, city, price, hist, event_time, clk, row in cells
    ]


def read_json(message, per_message):
    found = json.loads(message.decode("utf-8"))
    found = [found] if per_message == 1 else found
    assert isinstance(found, list)
    return [{**row, "city": row["city"] or ""} for row in found]


def read_arrow(message, _):
    table = pa.ipc.open_stream(message).read_all()
    label = table["clk"]
    assert pa.types.is_integer(label.type), "the label's type"
    assert label.null_count == 0
    return [{**row, "city": row["city"] or ""} for row in table.to_pylist()]


def read_tfexample(message, per_message):
    import tensorflow as tf  # here: it takes seconds

    texts, stream = [], io.BytesIO(message)
    if per_message == 1:
        examples = [tf.train.Example.FromString(message)]
    else:
        while (example := parse_length_prefixed(tf.train.Example, stream)) is not None:
            texts.append(example)
        examples = texts
    assert examples, "no row"
    rows = []
    for example in examples:
        feature = example.features.feature
        found = {name: list(feature[name].int64_list.value) for name in ("user_id", "event_time", "clk", "row")}
        assert all(len(values) == 1 for values in found.values()), "one value each"
        rows.append(
            {
                **{name: values[0] for name, values in found.items()},
                "city": b"".join(feature["city"].bytes_list.value).decode(),
                "price": feature["price"].float_list.value[0],
                "hist": list(feature["hist"].int64_list.value),
            }
        )
    return rows
