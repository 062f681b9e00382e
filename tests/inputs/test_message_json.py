from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from messages import cells_as, decode_as

from easyrec_lite.protos import data_pb2

BIG = 2**53 + 1


decode = functools.partial(decode_as, data_pb2.KafkaServer.JSON)


def cells(type_: str, *written: str) -> list[Any]:
    """What becomes of cells of one column, each in a message of its own; "bad" where its row is unusable."""
    values: list[bytes | None] = [f'{{"x":{cell},"other":[{{}}]}}'.encode() for cell in written]
    return cells_as(data_pb2.KafkaServer.JSON, type_, values)


def test_whole_numbers() -> None:
    assert cells("INT64", "5", "-0", "5.0", "5e2", '"5"', '" 5 "', "true", "null") == [5, 0, 5, 500, 5, 5, 1, None]
    assert cells("INT64", "1", "5.5", '"5.0"', '"abc"', "{}", "[1]", "Infinity", "NaN") == [1, *["bad"] * 6, None]
    large = [str(BIG), str(2**63 - 1), str(-(2**63)), "1", "1.0", f'"{BIG}"', str(2**63), "9" * 5000]
    assert cells("INT64", *large) == [BIG, 2**63 - 1, -(2**63), 1, 1, BIG, "bad", "bad"]
    assert cells("INT64", "1", *large)[1:] == cells("INT64", *large)
    assert cells("INT32", "2147483647", "2147483648", "null") == [2**31 - 1, "bad", None]
    assert cells("BOOL", "true", "false", "7", '"true"', '"x"') == [1, 0, 1, 1, "bad"]


def test_floats() -> None:
    assert cells("FLOAT", "1.5", "2", '"2.5"', "true", "null", "1e-999") == [1.5, 2.0, 2.5, 1.0, None, 0.0]
    assert cells("FLOAT", "NaN", '"nan"', "Infinity", "-Infinity", "1e39", "1e400", "9" * 400, "9" * 5000, '"x"') == [
        None,
        None,
        *["bad"] * 7,
    ]


def test_text() -> None:
    written = ['"a"', '""', '"\\u00e9\\u0000"', "5", "5.0", str(BIG), str(2**70), "9" * 5000, "2.5", "true", "null"]
    read = ["a", "", "é\0", "5", "5", str(BIG), str(2**70), "9" * 5000, "2.5", "true", None]
    assert cells("STRING", *written) == read
    assert cells("STRING", *reversed(written)) == read[::-1]
    assert cells("STRING", '"a"', "{}", "[]", '"\\ud83d"', '"\\ud83d\\ude00"') == ["a", "bad", "bad", "bad", "😀"]


def test_lists() -> None:
    assert cells("INT64s", "[1,2]", "[]", "null", '["3",4.0]', f"[{BIG}]") == [[1, 2], [], None, [3, 4], [BIG]]
    assert cells("INT64s", "[1,null,NaN]", "1", "[[1]]", "[1.5]", '["x"]', "{}") == [[1, 0, 0], *["bad"] * 5]
    assert cells("FLOATs", "[0.5,1]", '["2"]', "[1e39]") == [[0.5, 1], [2], "bad"]
    assert cells("STRINGs", '["a","b"]', "[1]", "[true]", "[{}]") == [["a", "b"], ["1"], ["true"], "bad"]


def test_keys() -> None:
    decoded = decode(
        [b'{"b":"x"}', b'{"a":1,"a":2,"b":"y"}', b'{"z":1,"z":2,"a":3}', b'{"\\u0061":4,"c":{"a":[{"d":{}}]}}', b"{}"],
        a="INT64",
        b="STRING",
    )
    assert decoded.rows.to_pylist() == [
        {"a": None, "b": "x"},
        {"a": 3, "b": None},
        {"a": 4, "b": None},
        {"a": None, "b": None},
    ]
    assert [(one.message, one.row, one.reason, one.column) for one in decoded.bad] == [
        (1, 0, "is given more than once", "a")
    ]


def test_required_cells() -> None:
    values: list[bytes | None] = [b'{"a":1}', b'{"a":null}', b"{}", b'{"a":NaN}', b'{"a":""}', b'[{"a":2},{}]']
    decoded = decode(values, ("a",), a="FLOAT")
    assert decoded.rows.column(0).to_pylist() == [1, 2]
    assert [(one.message, one.row, one.column) for one in decoded.bad] == [
        (1, 0, "a"),
        (2, 0, "a"),
        (3, 0, "a"),
        (4, 0, "a"),
        (5, 1, "a"),
    ]
    assert {one.reason for one in decoded.bad} == {"is missing: mend it, or declare its default_val"}


def test_many_rows_a_message() -> None:
    values: list[bytes | None] = [
        b'[{"a":1},{"a":2}]',
        b'{"a":3}\n{"a":4}\r\n\n{"a":5}\n',
        b'[\n {"a": 6 } ,\n {"a": [{"b":1},{"b":2}] },\n {"a":8}\n]',
        b'{\n "a":\n 9\n}',
        b' {"a":10} ',
        b'[{"a":11},null,{"a":"},{"},5,{"a":12}]',
        b'{"a":13}\n{"a":}\n{"a":14}',
        b'[{"a":15,"x":"},{","y":[{},{}]}]',
        b'{\n"a":16}\n{\n"a":17}',
    ]
    decoded = decode(values, a="INT64")
    found = zip(decoded.message.tolist(), decoded.row.tolist(), decoded.rows.column(0).to_pylist(), strict=True)
    assert list(found) == [
        *[(0, 0, 1), (0, 1, 2), (1, 0, 3), (1, 1, 4), (1, 2, 5), (2, 0, 6), (2, 2, 8), (3, 0, 9), (4, 0, 10)],
        *[(5, 0, 11), (5, 4, 12), (6, 0, 13), (6, 2, 14), (7, 0, 15), (8, 0, 16), (8, 1, 17)],
    ]
    assert [(one.message, one.row, one.reason) for one in decoded.bad] == [
        (2, 1, "is not a whole number (INT64)"),
        (5, 1, "null, where an object should be"),
        (5, 2, "is not a whole number (INT64)"),
        (5, 3, "a number, where an object should be"),
        (6, 1, "isn't JSON, from character 5 on"),
    ]
    assert decoded.counts.tolist() == [2, 3, 3, 1, 1, 5, 3, 1, 2]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"a":1}{"a":2}', "isn't JSON, from character 7 on"),
        (b'{"a":1},{"a":2}', "isn't JSON, from character 7 on"),
        (b'{"a":1}],"z":[{"a":2}', "isn't JSON, from character 7 on"),
        (b'[{"a":1}],"z":[{"a":2}]', "isn't JSON, from character 9 on"),
        (b'[{"a":1}{"a":2}]', "isn't JSON, from character 8 on"),
        (b'[{"a":1}\n{"a":2}]', "isn't JSON, from character 9 on"),
        (b'{"a":1}{"a":3,"x":', "isn't JSON, from character 7 on"),
        (b'{"x":', "isn't JSON, from character 5 on"),
        (b'{"a":1', "isn't JSON, from character 6 on"),
        (b'{"a":1,"x":"\xff"}', "isn't UTF-8 text"),
        (b'{"a":Inf}', "isn't JSON, from character 5 on"),
        (b'{"a":1,"x":-NaN}', "isn't JSON, from character 11 on"),
        (b'{"a":1}\x0b', "isn't JSON, from character 7 on"),
        (b'\xef\xbb\xbf{"a":1}', "isn't JSON, from character 0 on"),
        (b'{"a":1}//', "isn't JSON, from character 7 on"),
        (b'{"a":01}', "isn't JSON, from character 6 on"),
        (b"[]", "a list without rows"),
        (b" \n", "an empty message"),
        (b"7", "a number, where an object should be"),
        (b'"{}"', "a string, where an object should be"),
        (b"null", "null, where an object should be"),
        (b"[" * 100_000, "JSON nested too deeply"),
    ],
)
def test_what_is_no_json(value: bytes, reason: str) -> None:
    for values in ([value], [b'{"a":1}', value, b'{"a":2}'], [b'[{"a":1}]', value, b'{"b":1}}', b'[{"a":2}]']):
        decoded = decode(list(values), a="INT64")
        at = values.index(value)
        assert [(one.row, one.reason) for one in decoded.bad if one.message == at] == [(None, reason)]
        assert decoded.rows.column(0).to_pylist() == ([1, 2] if len(values) > 1 else [])
        assert all(one.message in (at, len(values) - 2) for one in decoded.bad)


def test_no_two_messages_make_one_object_together() -> None:
    # Laid end to end they would be as many objects as they are messages.
    decoded = decode([b'{"a":1}\n{"a":2}', b'{"a":', b'{"a":3}}', b'{"a":4}'], a="INT64")
    assert decoded.rows.column(0).to_pylist() == [1, 2, 4]
    assert [one.message for one in decoded.bad] == [1, 2]


def test_deep_objects_that_nobody_asked_for() -> None:
    deep = b'{"a":1,"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    assert decode([deep], a="INT64").rows.column(0).to_pylist() == [1]


def test_many_damaged_messages_among_others_written_otherwise() -> None:
    rows: list[dict[str, Any]] = [{"a": str(at) if at % 3 else at, "b": at / 2} for at in range(3000)]
    values: list[bytes | None] = [json.dumps(row).encode() for row in rows]
    for at in range(0, 3000, 10):
        values[at] = (values[at] or b"")[:-1]
    decoded = decode(values, a="INT64", b="FLOAT")
    assert decoded.message.tolist() == [at for at in range(3000) if at % 10]
    assert decoded.rows.column(0).to_pylist() == decoded.message.tolist()
    assert [one.message for one in decoded.bad] == list(range(0, 3000, 10))
