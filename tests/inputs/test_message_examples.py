from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import tensorflow as tf
from messages import cells_as, decode_as

from easyrec_lite.protos import data_pb2
from tools._kafka_formats import length_prefixed

NAN = math.nan


decode = functools.partial(decode_as, data_pb2.KafkaServer.TF_EXAMPLE)


def example(**features: list[Any]) -> bytes:
    result = tf.train.Example()
    for name, values in features.items():
        kind = (
            {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(values[0])] if values else "int64_list"
        )
        getattr(result.features.feature[name], kind).value.extend(values)
    return result.SerializeToString()


def cells(type_: str, *written: list[Any]) -> list[Any]:
    """What becomes of features, each in a message of its own; "bad" where its row is unusable."""
    values: list[bytes | None] = [example(x=values, other=[b"\xff"]) for values in written]
    return cells_as(data_pb2.KafkaServer.TF_EXAMPLE, type_, values)


def test_single_values_of_every_type() -> None:
    large = 2**63 - 1
    assert cells("INT64", [large], [1.0], [b"5"], [], [NAN]) == [large, 1, 5, None, None]
    assert cells("INT64", [1], [1.5], [b"x"], [1, 2], [b"9" * 99], [math.inf]) == [1, *["bad"] * 5]
    assert cells("INT32", [b"7"], [2**31]) == [7, "bad"]
    assert cells("FLOAT", [0.5], [2], [b"2.5"], [], [NAN], [math.inf], [b"x"]) == [
        0.5,
        2.0,
        2.5,
        None,
        None,
        "bad",
        "bad",
    ]
    assert cells("STRING", [b"a"], ["é".encode()], [5], [], [b""], [b"\xff"]) == ["a", "é", "5", None, "", "bad"]
    assert cells("STRING", [0.1], [0.1], [b"a"])[2] == "a"


def test_lists_of_every_type() -> None:
    assert cells("INT64s", [1, 2], [3], [], [b"4", b"5"], [1.0], [1.5]) == [[1, 2], [3], None, [4, 5], [1], "bad"]
    assert cells("FLOATs", [0.5, 1.0], [2], [NAN], [math.inf]) == [[0.5, 1.0], [2.0], [0.0], "bad"]
    assert cells("STRINGs", [b"a", b""], [7], [b"a", b"\xff"]) == [["a", ""], ["7"], "bad"]


def test_features_that_are_not_there() -> None:
    values = [example(a=[1]), example(), example(b=[b"x"])]
    decoded = decode(list(values), a="INT64", b="STRING")
    assert decoded.rows.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
    assert [(one.message, one.row, one.reason) for one in decoded.bad] == [(1, None, "an empty message")]
    missing = decode(
        [example(b=[b"x"]), example(a=[]), example(a=[NAN]), example(a=[b""]), example(a=[3])], ("a",), a="INT64"
    )
    assert missing.rows.to_pylist() == [{"a": 3}]
    assert [(one.row, one.column, one.reason) for one in missing.bad] == [
        (0, "a", "is missing: mend it, or declare its default_val")
    ] * 4


def test_many_rows_a_message() -> None:
    one, two, bad = example(a=[1]), example(a=[2], b=[b"y" * 200]), example(a=[b"x"])
    broken = length_prefixed(one[:-3])
    values = [
        length_prefixed(one) + length_prefixed(bad) + length_prefixed(two),
        two,
        length_prefixed(two),
        length_prefixed(one) + broken,
        length_prefixed(one) + length_prefixed(two)[:-1],
        length_prefixed(one) + length_prefixed(b"\n\x03\n\x01\xff") + length_prefixed(two),
    ]
    decoded = decode(list(values), a="INT64")
    found = zip(decoded.message.tolist(), decoded.row.tolist(), decoded.rows.column(0).to_pylist(), strict=True)
    assert list(found) == [(0, 0, 1), (0, 2, 2), (1, 0, 2), (2, 0, 2), (5, 0, 1), (5, 2, 2)]
    assert [(at.message, at.row, at.reason) for at in decoded.bad] == [
        (0, 1, "is not a whole number (INT64)"),
        (3, None, "neither a tf.Example nor several, each after its length"),
        (4, None, "neither a tf.Example nor several, each after its length"),
        (5, 1, "isn't a whole tf.Example"),
    ]
    assert decoded.counts.tolist() == [3, 1, 1, 1, 1, 3]


@pytest.mark.parametrize("length", [1, 9, 10, 11, 100, 127, 128, 300, 20_000])
def test_any_length_is_told_from_a_tag(length: int) -> None:
    value = example(a=[1], b=[b"z" * length])
    framed = [length_prefixed(value), length_prefixed(value) * 2]
    decoded = decode([value, *framed], b="STRING")
    assert decoded.counts.tolist() == [1, 1, 2]
    assert not decoded.bad


def test_what_was_cut_short_is_never_a_row() -> None:
    whole = example(a=[1], b=[b"x" * 150], c=[0.5] * 9)
    for value in (whole, length_prefixed(whole) + length_prefixed(whole)):
        cuts: list[bytes | None] = [value[:at] for at in range(len(value)) if at != len(length_prefixed(whole))]
        assert len(decode(cuts, a="INT64").bad) == len(cuts)


def test_many_written_otherwise() -> None:
    values: list[bytes | None] = [example(a=[at if at % 3 else float(at)], b=[b"w"]) for at in range(2500)]
    values[7::50] = [(value or b"")[:-2] for value in values[7::50]]
    decoded = decode(values, a="INT64", b="STRING")
    assert [one.message for one in decoded.bad] == list(range(7, 2500, 50))
    assert decoded.rows.column(0).to_pylist() == decoded.message.tolist()
