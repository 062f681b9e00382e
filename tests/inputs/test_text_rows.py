from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from input_rows import data_config, to_lists, to_rows

from easyrec_lite.config import ConfigError
from easyrec_lite.inputs import BadRows, InputError, Kind, WindowedSource, open_source
from easyrec_lite.inputs import text as text_module
from easyrec_lite.inputs.cells import split
from easyrec_lite.protos import data_pb2

Opener = Callable[..., WindowedSource]


def tolerant(path: Path | None = None) -> BadRows:
    return BadRows(path, max_share=1.0)


def faults(source: WindowedSource) -> list[str]:
    return [line.split(".csv:")[-1] for line in source.peek(100).bad]


def test_bad_cells_cost_their_row_and_are_named(open_text: Opener) -> None:
    text = (
        b"1,0.5,a\n"  # 1
        b"\n"
        b"2,x,b\r\n"  # 3: not a number
        b"3,0.5\n"  # 4: two columns
        b"   \n"  # 5: one column
        b"9223372036854775808,1,c\n"  # 6: int64 + 1
        b"1.5,1,c\n"  # 7: not whole
        b"4,1e39,c\n"  # 8: infinite as a float32
        b"5,-inf,c\n"  # 9
        b"6,1,\xff\xfe\n"  # 10: not UTF-8
        b"-9223372036854775808, 2 ,ok\n"  # 11
        b'+7,"3","say ""hi"", ok"\n'  # 12
        b"8,nan,\n"  # 13: missing, missing
        b"9,1,c,d"  # 14: four columns, no line end
    )
    source = open_text(text, bad=tolerant())
    assert to_rows(list(source.read())) == [
        (1, 0.5, "a"),
        (-(2**63), 2.0, "ok"),
        (7, 3.0, 'say "hi", ok'),
        (8, 0.0, "none"),
    ]
    assert source.bad_rows.tally.rows == 13
    assert source.bad_rows.tally.bad == 9
    assert (
        faults(source)
        == [
            "3: column 'price': 'x' is not a finite number",
            "4: 2 columns, expected 3",
            "5: 1 column, expected 3",
            "6: column 'id': '9223372036854775808' is not a whole number (INT64)",
            "7: column 'id': '1.5' is not a whole number (INT64)",
            "8: column 'price': '1e39' is not a finite number",
            "9: column 'price': '-inf' is not a finite number",
            r"10: column 'word': '\\xff\\xfe' is not UTF-8 text",
            "14: 4 columns, expected 3",
        ][: len(faults(source))]
    )
    assert len(faults(source)) == 9


def test_damage_never_reaches_beyond_its_line(open_text: Opener) -> None:
    text = '1,1,a\n2,2,"open\n3,3,c\n\n4,4,a\rb\n5,5,5" disk\n6,6,"x" y\n7,"7,z\n'
    source = open_text(text, bad=tolerant())
    assert to_rows(list(source.read())) == [(1, 1, "a"), (3, 3, "c"), (5, 5, '5" disk'), (6, 6, "x y")]
    assert faults(source) == [
        "2: a quoted cell that isn't closed on its line",
        "5: a carriage return inside the line",
        "8: a quoted cell that isn't closed on its line",
    ]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("block", [7, 16, 50, 1 << 20])
def test_line_numbers_count_the_header_and_blank_lines_across_blocks(
    open_text: Opener, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], block: int
) -> None:
    monkeypatch.setattr(text_module, "_BLOCK_BYTES", block)
    lines = ["\ufeffid,price,word"] + [f"{i},1,a" if i % 5 else "" if i % 10 else "x,1,a" for i in range(2, 42)]
    source = open_text(pack("\r\n".join(lines).encode()), with_header=True, bad=tolerant())
    assert [row[0] for row in to_rows(list(source.read()))] == [i for i in range(2, 42) if i % 5]
    assert [int(line.split(":")[0]) for line in faults(source)] == [10, 20, 30, 40]


def test_header_goes_by_name_and_may_differ_between_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('word,"id",extra\nx,1,?\n')
    (tmp_path / "b.csv").write_text("id,word\n2,y\n")
    config = data_config(input_type="CSVInput", with_header=True)
    source = open_source(config, f"{tmp_path}/a.csv,{tmp_path}/b.csv", columns=["id", "word"], shuffle=False)
    assert to_rows(list(source.read())) == [(1, "x"), (2, "y")]
    (tmp_path / "b.csv").write_text("id,wort\n2,y\n")
    with pytest.raises(
        InputError, match=r"b.csv:1: found a header without column 'word'; expected the columns of .*a.csv"
    ):
        open_source(config, f"{tmp_path}/*.csv", columns=["id", "word"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n1,2,a\n", "a.csv:1: found an empty line; expected the names of the columns, for with_header is true"),
        (b'id,"' + b"x" * 200_000 + b'"\n1,2\n', "a.csv:1: found a header that can't be read"),
    ],
)
def test_headers_that_name_nothing(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(InputError, match=message):
        open_source(data_pb2.DatasetConfig(with_header=True), tmp_path / "a.csv")


def test_columns_are_inferred_from_header_and_first_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "i,f,s,zip,empty,d,long\n1,1,a,0123,,5,1\n-2,2.5,b,9876,,6,9999999999999999999\n0,nan,3,1,,7,\n"
    )
    config = data_pb2.DatasetConfig(with_header=True)
    config.input_fields.add(input_name="d", input_type="STRING")
    source = open_source(
        config, tmp_path / "a.csv", columns=["i", "f", "s", "zip", "empty", "d", "long"], shuffle=False
    )
    kinds = [spec.kind for spec in source.columns.values()]
    assert kinds == [Kind.INT, Kind.FLOAT, *[Kind.TEXT] * 5]
    (batch,) = source.read()
    assert to_rows([batch])[2] == (0, 0.0, "3", "1", "", "7", "")
    assert batch.missing == {"f": 1, "empty": 3, "long": 1}


def test_a_wrong_inference_says_so(tmp_path: Path) -> None:
    config = data_pb2.DatasetConfig(with_header=True)
    (tmp_path / "a.csv").write_text("id\n1\n2\n")
    (tmp_path / "b.csv").write_text("id\nu7\n")
    with pytest.raises(
        InputError, match=r"b.csv:2: column 'id': 'u7' is not a whole number \(INT64\), a type inferred from the data"
    ):
        list(open_source(config, f"{tmp_path}/*.csv", shuffle=False).read())


@pytest.mark.parametrize("separator", ["||", "\001", "\t", ";", "\002\003", "→"])
def test_separators(open_text: Opener, separator: str) -> None:
    text = separator.join(["1", "2.5", "a, b"]) + "\n" + separator.join(["2", "", ""]) + "\n"
    assert to_rows(list(open_text(text, separator=separator).read())) == [(1, 2.5, "a, b"), (2, 0.0, "none")]


def test_types_in_text(tmp_path: Path) -> None:
    config = data_pb2.DatasetConfig(input_type="CSVInput")
    config.input_fields.add(input_name="b", input_type="BOOL", default_val="true")
    config.input_fields.add(input_name="i", input_type="INT32", ignore_val="-9")
    config.input_fields.add(input_name="d", input_type="DOUBLE", default_val="0.5")
    (tmp_path / "a.csv").write_text("true,-2147483648,1e-3\nFalse,-9,\n,2147483648,\n1,,\nyes,1,1\n")
    source = open_source(config, tmp_path / "a.csv", shuffle=False, bad_rows=BadRows(max_share=1.0))
    (batch,) = source.read()
    assert to_lists(batch) == {
        "b": [1, 0, 1],
        "i": [-(2**31), 0, 0],
        "d": [pytest.approx(1e-3), 0.5, 0.5],
    }
    assert batch.missing == {"i": 2, "d": 2}
    assert [line.split(": ")[1] for line in source.peek(9).bad] == ["column 'i'", "column 'b'"]


def test_defaults_that_do_not_parse_are_all_reported(tmp_path: Path) -> None:
    config = data_pb2.DatasetConfig(input_type="CSVInput")
    for index, (type_, default) in enumerate(
        [("INT32", "3000000000"), ("FLOAT", "nan"), ("BOOL", "maybe"), ("INT64", "x")]
    ):
        config.input_fields.add(input_name=f"c{index}", input_type=type_, default_val=default)
    (tmp_path / "a.csv").write_text("1,1,1,1\n")
    with pytest.raises(ConfigError) as caught:
        open_source(config, tmp_path / "a.csv")
    paths = [problem.path for problem in caught.value.problems]
    assert paths == [f"data_config.input_fields[c{i}].default_val" for i in range(4)]


def test_fields_that_do_not_fit_the_file(open_text: Opener) -> None:
    with pytest.raises(
        ConfigError, match=r"found 1 column, data_config.input_fields has 3 .*check data_config.separator"
    ):
        open_text("1;2;3\n4;5;6\n")


def test_text_needs_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2\n")
    with pytest.raises(ConfigError, match="no fields, and no header"):
        open_source(data_pb2.DatasetConfig(input_type="CSVInput"), tmp_path / "a.csv")


def test_truncated_gzip_ends_in_a_clear_error(open_text: Opener) -> None:
    text = "".join(f"{i},0.{i},word{i * 7919}\n" for i in range(200_000)).encode()
    source = open_text(gzip.compress(text)[:-2000], name="rows.csv.gz")
    with pytest.raises(InputError, match=r"rows.csv.gz: found a gzip file that ends too early"):
        list(source.read())


def test_binary_files_are_not_text(open_text: Opener) -> None:
    with pytest.raises(InputError, match="found a binary file; expected lines of text"):
        open_text(b"PAR1\x15\x04")


def test_bad_rows_are_logged_a_few_times(open_text: Opener, caplog: pytest.LogCaptureFixture) -> None:
    source = open_text("1,1,a\n" + "x,1,a\n" * 9, bad=tolerant())
    with caplog.at_level(logging.WARNING):
        list(source.read())
    assert [record.message.startswith("row left out: ") for record in caplog.records] == [True] * 5


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.booleans())
def test_any_bytes_become_rows_or_bad_lines_exactly_once(lines: list[bytes], ended: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    cells = split(data, b",", 2, {"a": 0, "b": 1}, "f")
    numbers = [int(number) for number in cells.lines()] + [line.line for line in cells.bad]
    blank = [index for index, line in enumerate(lines) if line not in (b"", b"\r")]
    assert sorted(numbers) == blank
    for number, a, b in zip(cells.lines(), cells.columns["a"].to_pylist(), cells.columns["b"].to_pylist(), strict=True):
        line = lines[number].removesuffix(b"\r")
        if b'"' not in line:
            assert line.split(b",") == [a or b"", b or b""]


QUOTES = st.lists(st.sampled_from([b'"', b",", b"a", b"\r", b'""', b'"b"']), max_size=8).map(b"".join)


@given(st.lists(QUOTES, max_size=6))
def test_any_quotes_stay_on_their_line(lines: list[bytes]) -> None:
    together = split(b"\n".join(lines), b",", 2, {"a": 0, "b": 1}, "f")
    alone = [split(line, b",", 2, {"a": 0, "b": 1}, "f") for line in lines]
    assert together.columns["a"].to_pylist() == [cell for cells in alone for cell in cells.columns["a"].to_pylist()]
    assert together.columns["b"].to_pylist() == [cell for cells in alone for cell in cells.columns["b"].to_pylist()]
    assert {bad.line: bad.reason for bad in together.bad} == {
        index: cells.bad[0].reason for index, cells in enumerate(alone) if cells.bad
    }
