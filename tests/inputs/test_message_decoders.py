"""What holds for every format: damage costs nothing but itself, and rows don't depend on what they are decoded with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.config import ConfigError
from easyrec_lite.inputs.messages import Decoded, Decoder, build_decoder
from easyrec_lite.protos import data_pb2
from tools._kafka_damage import Damager
from tools._kafka_formats import Format

K = data_pb2.KafkaServer
VALUE_FORMATS = {"csv": K.CSV, "json": K.JSON, "tfexample": K.TF_EXAMPLE, "arrow": K.ARROW}
TYPES = {"user": "INT64", "price": "FLOAT", "city": "STRING", "hist": "INT64", "clk": "INT32"}


def config(lists: bool = True, **options: Any) -> data_pb2.DatasetConfig:
    result = data_pb2.DatasetConfig(**options)
    for name, type_ in TYPES.items():
        if lists or name != "hist":
            result.input_fields.add(input_name=name, input_type=type_, list=name == "hist" or None)
    return result


@cache
def decoder(name: str) -> Decoder:
    return build_decoder(config(lists=name != "csv"), VALUE_FORMATS[name], None, ["clk"])


@cache
def table(name: str, rows: int = 90) -> pa.Table:
    random = np.random.default_rng(7)
    columns = {
        "user": pa.array(random.integers(-(2**63), 2**63 - 1, rows)),
        "price": pa.array([None if at % 5 == 2 else at / 4 for at in range(rows)], pa.float32()),
        "city": pa.array([None if at % 7 == 3 else f"ci,ty {at % 5} é" for at in range(rows)]),
        "hist": pa.array([None if at % 3 == 1 else list(range(1, at % 3 + 2)) for at in range(rows)]),
        "clk": pa.array(random.integers(0, 2, rows), pa.int32()),
    }
    return pa.table({key: values for key, values in columns.items() if name != "csv" or key != "hist"})


def places(decoded: Decoded) -> list[tuple[int, int]]:
    return list(zip(decoded.message.tolist(), decoded.row.tolist(), strict=True))


def everything(decoded: Decoded, shift: int = 0) -> tuple[list[Any], list[Any], list[int]]:
    rows = [(message + shift, row) for message, row in places(decoded)]
    bad = [(one.message + shift, one.row, one.reason, one.column, one.value, repr(one.cells)) for one in decoded.bad]
    return list(zip(rows, decoded.rows.to_pylist(), strict=True)), bad, decoded.counts.tolist()


def check_accounts(decoded: Decoded, messages: int) -> None:
    """Every message's rows are either there or bad, once, and in order."""
    assert len(decoded.counts) == messages
    assert len(decoded.rows) == len(decoded.message) == len(decoded.row)
    found: dict[int, list[int | None]] = {message: [] for message in range(messages)}
    for message, row in places(decoded):
        found[message].append(row)
    assert places(decoded) == sorted(places(decoded))
    order = [(one.message, -1 if one.row is None else one.row) for one in decoded.bad]
    assert order == sorted(order)
    for one in decoded.bad:
        found[one.message].append(one.row)
    for message, rows in found.items():
        if rows == [None]:
            assert decoded.counts[message] == 1
        else:
            assert sorted(rows) == list(range(decoded.counts[message])), message  # type: ignore[type-var]
            assert rows


@pytest.mark.parametrize("per_message", [1, 7])
@pytest.mark.parametrize("name", VALUE_FORMATS)
def test_sound_messages_come_out_as_they_went_in(name: str, per_message: int) -> None:
    rows = table(name)
    decoded = decoder(name).decode(Format(name, per_message).messages(rows))
    assert not decoded.bad
    assert decoded.rows.to_pylist() == rows.to_pylist()
    sizes = [min(per_message, 90 - start) for start in range(0, 90, per_message)]
    assert decoded.counts.tolist() == sizes
    assert places(decoded) == [(at // per_message, at % per_message) for at in range(90)]
    kinds = {"user": pa.int64(), "price": pa.float32(), "city": pa.string(), "clk": pa.int64()}
    expected = {**kinds, "hist": pa.list_(pa.int64())}
    assert decoded.rows.schema == pa.schema([(key, expected[key]) for key in rows.column_names])


@pytest.mark.parametrize("per_message", [1, 7])
@pytest.mark.parametrize("name", VALUE_FORMATS)
def test_damage_of_every_kind_costs_nothing_but_itself(name: str, per_message: int) -> None:
    rows, form = table(name), Format(name, per_message)
    sound, damager = form.messages(rows), Damager(form, "clk")
    random = np.random.default_rng(3)
    values: list[bytes | None] = []
    kinds: dict[int, str] = {}
    for round_ in range(2):
        for at, kind in enumerate(damager.kinds):
            values += sound[at % len(sound) : at % len(sound) + 1]
            kinds[len(values)] = kind
            values.append(damager.make(kind, rows.slice(at + 15 * round_, 1), random))
    decoded = decoder(name).decode([*values, *sound])
    check_accounts(decoded, len(values) + len(sound))
    assert [one.message for one in decoded.bad] == list(kinds)
    for one in decoded.bad:
        assert one.reason
        assert decoded.counts[one.message] == 1
        for private in ("ci,ty", "abc", "999", "0.", "é"):
            assert private not in one.reason
    expected = [
        row
        for at, value in enumerate([*values, *sound])
        if at not in kinds
        for row in decoder(name).decode([value]).rows.to_pylist()
    ]
    assert decoded.rows.to_pylist() == expected
    assert expected[-90:] == rows.to_pylist()


@pytest.mark.parametrize("name", VALUE_FORMATS)
def test_one_bad_cell_costs_its_row_only(name: str) -> None:
    rows = table(name, 9)
    labels = pa.array([1, None, 0, 2**40, 1, 1, 1, 1, None])
    rows = rows.set_column(rows.column_names.index("clk"), "clk", labels)
    decoded = decoder(name).decode(Format(name, 5).messages(rows))
    assert decoded.counts.tolist() == [5, 4]
    assert [(one.message, one.row, one.column, one.value) for one in decoded.bad] == [
        (0, 1, "clk", None),
        (0, 3, "clk", str(2**40)),
        (1, 3, "clk", None),
    ]
    assert decoded.bad[0].reason == "is missing: mend it, or declare its default_val"
    assert decoded.bad[1].reason == "is not a whole number (INT32)"
    assert decoded.bad[1].cells is not None
    assert str(decoded.bad[1].cells["user"]) == str(rows["user"][3].as_py())
    assert decoded.rows.to_pylist() == rows.take([0, 2, 4, 5, 6, 7]).to_pylist()
    assert places(decoded) == [(0, 0), (0, 2), (0, 4), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("name", VALUE_FORMATS)
def test_nothing_from_nothing(name: str) -> None:
    decoded = decoder(name).decode([])
    assert len(decoded.rows) == len(decoded.counts) == len(decoded.bad) == 0
    assert decoded.rows.schema == decoder(name).decode(Format(name).messages(table(name))).rows.schema
    alone = decoder(name).decode([None, b""])
    assert len(alone.rows) == 0
    assert [(one.message, one.row, one.reason) for one in alone.bad] == [
        (0, None, "no value"),
        (1, None, "an empty message"),
    ]


@pytest.mark.parametrize("name", VALUE_FORMATS)
def test_some_columns_only(name: str) -> None:
    some = build_decoder(config(lists=name != "csv"), VALUE_FORMATS[name], ["city"], ["clk"])
    assert list(some.specs) == ["city", "clk"]
    decoded = some.decode(Format(name, 4).messages(table(name)))
    assert decoded.rows.to_pylist() == table(name).select(["city", "clk"]).to_pylist()


@cache
def pool(name: str) -> list[bytes | None]:
    """Messages to draw from: sound ones of one and many rows, and every kind of damage."""
    random, one, many = np.random.default_rng(5), Format(name), Format(name, 3)
    values: list[bytes | None] = [*one.messages(table(name, 5)), *many.messages(table(name, 8))]
    for form in (one, many):
        damager = Damager(form, "clk")
        values += [damager.make(kind, table(name).slice(4, 1), random) for kind in damager.kinds if kind != "huge"]
    return values


def messages(name: str) -> st.SearchStrategy[list[bytes | None]]:
    known = st.sampled_from(pool(name))
    cut = st.tuples(known, st.integers(0, 400)).map(lambda pair: (pair[0] or b"")[: pair[1]])
    changed = st.tuples(known, st.integers(0, 400), st.binary(max_size=2)).map(
        lambda parts: (parts[0] or b"")[: parts[1]] + parts[2] + (parts[0] or b"")[parts[1] + 1 :]
    )
    return st.lists(st.one_of(known, known, cut, changed, st.binary(max_size=40)), max_size=8)


@pytest.mark.parametrize("name", VALUE_FORMATS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_bytes_are_accounted_for_and_alone_decide(name: str, data: st.DataObject) -> None:
    first, second = data.draw(messages(name)), data.draw(messages(name))
    together: Sequence[bytes | None] = [*first, *second]
    decoded = decoder(name).decode(together)
    check_accounts(decoded, len(together))
    one, other = decoder(name).decode(first), decoder(name).decode(second)
    parts = zip(everything(one), everything(other, len(first)), strict=True)
    assert everything(decoded) == tuple(ones + others for ones, others in parts)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VALUE_FORMATS:
        values = [*pool(name), *Format(name, 2).messages(table(name))]
        expected = everything(decoder(name).decode(values))
        with monkeypatch.context() as patch:
            patch.setattr(type(decoder(name)), "chunk", 4)
            assert everything(decoder(name).decode(values)) == expected
        with monkeypatch.context() as patch:
            patch.setattr("easyrec_lite.inputs.messages.decoder._CHUNK_BYTES", 300)
            assert everything(decoder(name).decode(values)) == expected


def test_all_problems_of_a_config_are_told_at_once() -> None:
    damaged = config(separator="\n")
    damaged.input_fields.add(input_name="age", input_type="INT32", default_val="old")
    damaged.input_fields.add(input_name="user")
    with pytest.raises(ConfigError) as caught:
        build_decoder(damaged, K.CSV, ["user", "age", "pric"], ["label"])
    told = {problem.path: problem for problem in caught.value.problems}
    assert set(told) == {
        "data_config.input_fields[hist].list",
        "data_config.separator",
        "data_config.input_fields[user]",
        "data_config.input_fields[age].default_val",
        "data_config.input_fields",
    }
    assert len(caught.value.problems) == 6
    assert "did you mean 'price'?" in str(caught.value)
    assert "'label'" in str(caught.value)


def test_an_event_time_in_milliseconds_costs_its_row() -> None:
    data = data_pb2.DatasetConfig(event_time_field="ts")
    data.input_fields.add(input_name="ts", input_type="INT64")
    decoded = build_decoder(data, K.JSON).decode([b'{"ts": 1700000000}', b'{"ts": 1700001000000}'])
    assert decoded.rows.to_pydict() == {"ts": [1_700_000_000]}
    assert [(bad.message, bad.column, bad.value) for bad in decoded.bad] == [(1, "ts", "1700001000000")]
    assert "seconds since 1970" in decoded.bad[0].reason


def test_a_config_without_fields() -> None:
    for form in VALUE_FORMATS.values():
        with pytest.raises(ConfigError, match="no column to read"):
            build_decoder(data_pb2.DatasetConfig(), form)
        with pytest.raises(ConfigError, match="clk"):
            build_decoder(data_pb2.DatasetConfig(), form, None, ["clk"])
