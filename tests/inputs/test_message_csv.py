from __future__ import annotations

from typing import Any

import pytest

from easyrec_lite.inputs.messages import Decoded, build_decoder
from easyrec_lite.protos import data_pb2


def decode(values: list[bytes | None], separator: str = ",", **fields: str) -> Decoded:
    config = data_pb2.DatasetConfig(separator=separator)
    fields = fields or {"id": "INT64", "word": "STRING"}
    for name, type_ in fields.items():
        config.input_fields.add(input_name=name, input_type=type_)
    return build_decoder(config, data_pb2.KafkaServer.CSV, None, [next(iter(fields))]).decode(values)


def rows(decoded: Decoded) -> list[tuple[int, int, Any]]:
    ids = decoded.rows.column(0).to_pylist()
    return list(zip(decoded.message.tolist(), decoded.row.tolist(), ids, strict=True))


def bad(decoded: Decoded) -> list[tuple[int, int | None, str]]:
    return [(one.message, one.row, one.reason) for one in decoded.bad]


def test_lines_find_back_to_their_messages() -> None:
    values = [b"1,a\n2,b", b"3,c\n", b"\n4,d\r\n\r\n5,e\r\n", b"6,f\r", b"7,g"]
    decoded = decode(list(values))
    assert rows(decoded) == [(0, 0, 1), (0, 1, 2), (1, 0, 3), (2, 0, 4), (2, 1, 5), (3, 0, 6), (4, 0, 7)]
    assert decoded.rows.column(1).to_pylist() == list("abcdefg")
    assert decoded.counts.tolist() == [2, 1, 2, 1, 1]
    assert not decoded.bad


def test_blank_messages_and_lines() -> None:
    decoded = decode([b"", b"\n", b"\r\n\r\n", b" ", b"1,a\n\n\n2,b", None, b","])
    assert rows(decoded) == [(4, 0, 1), (4, 1, 2)]
    assert bad(decoded) == [
        (0, None, "an empty message"),
        (1, None, "an empty message"),
        (2, None, "an empty message"),
        (3, 0, "1 column, expected 2"),
        (5, None, "no value"),
        (6, 0, "is missing: mend it, or declare its default_val"),
    ]
    assert decoded.counts.tolist() == [1, 1, 1, 1, 2, 1, 1]


def test_a_bad_line_costs_itself() -> None:
    text = b'1,a\nx,b\n3\n4,d,e\n5,"f\n6,g\xff\n7,"h,""i"""\n8,j\rk\n9,l'
    decoded = decode([b"0,z", text, b'"10","m"'])
    assert rows(decoded) == [(0, 0, 0), (1, 0, 1), (1, 6, 7), (1, 8, 9), (2, 0, 10)]
    assert decoded.rows.column(1).to_pylist() == ["z", "a", 'h,"i"', "l", "m"]
    assert bad(decoded) == [
        (1, 1, "is not a whole number (INT64)"),
        (1, 2, "1 column, expected 2"),
        (1, 3, "3 columns, expected 2"),
        (1, 4, "a quoted cell that isn't closed on its line"),
        (1, 5, "is not UTF-8 text"),
        (1, 7, "a carriage return inside the line"),
    ]
    assert decoded.counts.tolist() == [1, 9, 1]
    assert (decoded.bad[0].column, decoded.bad[0].value) == ("id", "x")
    assert decoded.bad[0].cells == {"id": "x", "word": "b"}


def test_a_quote_never_swallows_the_next_message() -> None:
    decoded = decode([b'1,"a', b'b",2', b'3,"c', b"4,d", b'5,"e"'])
    assert rows(decoded) == [(3, 0, 4), (4, 0, 5)]
    assert [one.message for one in decoded.bad] == [0, 1, 2]


def test_numbers_are_read_as_everywhere() -> None:
    texts = ["7", " 7 ", "+7", "-7", "007", "-0", "7.0", "0x", "9" * 19, str(2**63 - 1), "1e2", ""]
    decoded = decode([text.encode() + b",w" for text in texts])
    assert [value for _, _, value in rows(decoded)] == [7, 7, 7, -7, 7, 0, 2**63 - 1]
    assert [one.message for one in decoded.bad] == [6, 7, 8, 10, 11]
    floats = decode(
        [f"{text},w".encode() for text in ["1.5", " .5", "-2e3", "1e39", "inf", "nan", "x"]], f="FLOAT", w="STRING"
    )
    assert floats.rows.column(0).to_pylist() == [1.5, 0.5, -2000.0]
    assert [one.value for one in floats.bad] == ["1e39", "inf", "nan", "x"]


@pytest.mark.parametrize("separator", ["||", "\x01\x02", "é", "\t", "\x01"])
def test_separators(separator: str) -> None:
    lines = [separator.join(("1", "a")), separator.join(("2", "b")) + "\n" + separator.join(("3", "c")), "4"]
    decoded = decode([line.encode() for line in lines], separator)
    assert rows(decoded) == [(0, 0, 1), (1, 0, 2), (1, 1, 3)]
    assert bad(decoded) == [(2, 0, "1 column, expected 2")]


def test_every_control_character_beside_a_long_separator() -> None:
    controls = bytes(byte for byte in range(1, 32) if byte not in b"\r\n")
    half, rest = controls[:14], controls[14:]
    decoded = decode([b"1||a", b"2||" + controls, b"3||" + half, b"4||" + rest, b"5||e"], "||")
    assert rows(decoded) == [(0, 0, 1), (2, 0, 3), (3, 0, 4), (4, 0, 5)]
    assert bad(decoded) == [(1, None, "text with every control character")]
    assert decoded.rows.column(1).to_pylist() == ["a", half.decode(), rest.decode(), "e"]


def test_one_column_of_text_may_be_blanks() -> None:
    decoded = decode([b" ", b"\t", b"a"], word="STRING")
    assert decoded.rows.column(0).to_pylist() == [" ", "\t", "a"]


def test_messages_of_tabs_are_rows_of_missing_cells() -> None:
    config = data_pb2.DatasetConfig(separator="\t")
    config.input_fields.add(input_name="a", input_type="INT64")
    config.input_fields.add(input_name="b", input_type="STRING")
    decoded = build_decoder(config, data_pb2.KafkaServer.CSV).decode([b"\t"])
    assert decoded.rows.to_pylist() == [{"a": None, "b": None}]


def test_a_value_outside_of_its_limits_costs_its_row() -> None:
    config = data_pb2.DatasetConfig(separator=",")
    for name, type_ in {"click": "FLOAT", "word": "STRING"}.items():
        config.input_fields.add(input_name=name, input_type=type_)
    limits = {"click": (0.0, 1.0), "word": (0.0, 1.0)}  # text has none
    decoder = build_decoder(config, data_pb2.KafkaServer.CSV, None, [], limits)
    decoded = decoder.decode([b"0,a\n2,b\n1,c", b",d", b"-0.5,e"])
    assert decoded.rows.column(0).to_pylist() == [0.0, 1.0, None]
    assert bad(decoded) == [(0, 1, "is outside of 0 .. 1"), (2, 0, "is outside of 0 .. 1")]
