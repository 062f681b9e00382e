"""Predictions in Python: every form that rows come in, and what is said of rows that can't be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from exports import LISTS, Exported, assert_same, request_rows, trained_predictions

from easyrec_lite.errors import UserError
from easyrec_lite.serving import PredictionError, Predictor

Get = Callable[..., Exported]
ROW = {"user": 3, "gender": "f", "age": 0.5, "tags": [1, 2], "item": 4, "price": 2.5}


@pytest.fixture(scope="module")
def expected(exported: Get) -> dict[str, np.ndarray]:
    return trained_predictions(exported("multi_tower", lists=True).recommender, request_rows(lists=True))


def test_rows_in_every_form(predictor: Predictor, expected: dict[str, np.ndarray]) -> None:
    frame = request_rows(lists=True)
    joined = frame.copy()
    for name in LISTS:
        joined[name] = ["|".join(map(str, cell)) if isinstance(cell, list) else None for cell in frame[name]]
    typed = frame.astype({"user": "Int64", "item": "Int64", "age": "float32", "price": "float64", "gender": "string"})
    records = frame.to_dict("records")
    forms: dict[str, Any] = {
        "frame": frame,
        "frame with nullable types": typed,
        "frame with other columns": frame.assign(noise=1.0),
        "frame with another index": frame.set_index(np.arange(len(frame), 0, -1)),
        "columns": {name: list(frame[name]) for name in frame},
        "columns as arrays": {name: frame[name].to_numpy() for name in frame},
        "rows": records,
        "rows without the empty cells": [{n: cell for n, cell in row.items() if cell is not None} for row in records],
        "lists as text": joined,
        "lists as arrays": frame.assign(tags=[None if c is None else np.array(c, object) for c in frame["tags"]]),
    }
    for form, rows in forms.items():
        for batch_size in (4096, 11):
            found = predictor.predict(rows, batch_size)
            assert len(found["probs"]) == len(frame), form
            assert_same(found, expected)


def test_columns_left_out_take_their_defaults(predictor: Predictor) -> None:
    given = predictor.predict([ROW | {"price": 3.5, "gender": "", "tags": []}])  # 3.5 is price's default_val
    left_out = predictor.predict([{name: ROW[name] for name in ("user", "age", "item")}])
    assert_same(left_out, given)


def test_whole_numbers_stay_whole_beside_empty_cells(predictor: Predictor) -> None:
    # pandas makes floats of whole numbers in a column with holes; text columns must not see "7.0".
    whole = predictor.predict([ROW | {"gender": "7"}, ROW | {"gender": None}])
    assert_same(predictor.predict([ROW | {"gender": 7}, ROW | {"gender": None}]), whole)
    assert_same(predictor.predict(pd.DataFrame([ROW | {"gender": 7}, ROW | {"gender": None}])), whole)
    assert_same(predictor.predict([ROW | {"gender": b"7"}, ROW | {"gender": float("nan")}]), whole)


def test_no_rows(predictor: Predictor) -> None:
    for rows in ([], request_rows(4, lists=True)[:0], {"user": []}):
        assert predictor.predict(rows)["probs"].shape == (0,)


def test_strings_for_an_export_with_an_input_a_column(predictor: Predictor) -> None:
    assert [column.name for column in predictor.columns] == ["user", "gender", "age", "item", "price", "tags"]
    assert_same(predictor.predict(["3,f,0.5,4,2.5,1|2"]), predictor.predict([ROW]))
    assert_same(predictor.predict([[3, "f", 0.5, 4, 2.5, ["1", "2"]]]), predictor.predict([ROW]))
    assert_same(predictor.predict([(3, "f", 0.5), [3, "f", 0.5, None]]), predictor.predict(["3,f,0.5", "3,f,0.5,"]))
    assert_same(predictor.predict(["3,f,0.5"]), predictor.predict([{"user": 3, "gender": "f", "age": 0.5}]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, ROW | {"user": "seven"}], r"rows\[1\], column 'user': found 'seven'; expected int64\. Leave .* for 0"),
        ([ROW | {"user": 3.5}], r"rows\[0\], column 'user': found 3.5; expected int64"),
        ([ROW | {"user": "3.0"}], r"column 'user': found '3.0'; expected int64"),
        ([ROW | {"user": 2**70}], r"column 'user': found \d+; expected int64"),
        ([ROW | {"user": [3]}], r"column 'user': found \[3\]; expected int64"),
        ([ROW | {"price": "cheap"}], r"column 'price': found 'cheap'; expected float32\. Leave .* for 3.5"),
        ([ROW | {"price": float("inf")}], r"column 'price': found inf; expected float32"),
        ([ROW | {"price": 1e39}], r"column 'price': found 1e\+39; expected float32"),
        (
            [ROW | {"tags": ["1", "2|3"]}],
            r"column 'tags': found \['1', '2\|3'\]; expected a list of string, or",
        ),
        ([{"usr": 3}], r"rows: found none of the model's columns; expected some of user, gender"),
        (pd.DataFrame({"usr": [3]}), r"rows: found none of the model's columns"),
        ({"user": [1, 2], "item": [1]}, r"different lengths, \{'user': 2, 'item': 1\}"),
        (ROW, r"rows: found one value for 'user'; expected a list of values"),
        ("3,f,0.5", r"rows: found str '3,f,0.5'; expected a list of mappings"),
        (None, r"rows: found NoneType 'None'; expected a list of mappings"),
        (5, r"rows: found int '5'; expected a list of mappings"),
        ((row for row in [ROW]), r"rows: found generator .*; expected a list of mappings"),
        ([ROW, "3,f"], r"rows: found list .*; expected a list of mappings"),
        (["3,f,0.5,4,2.5,1|2,9"], r"rows\[0\]: found 7 cells; expected 6: user, gender"),
        ([[3, "f", 0.5, 4, 2.5, "1|2", 9]], r"rows\[0\]: found 7 cells; expected 6: user, gender"),
    ],
)
def test_rows_that_cannot_be_used(predictor: Predictor, rows: Any, message: str) -> None:
    with pytest.raises(PredictionError, match=message) as caught:
        predictor.predict(rows)
    assert isinstance(caught.value, UserError)


def test_batches_have_rows(predictor: Predictor) -> None:
    with pytest.raises(PredictionError, match="batch_size: found 0; expected at least 1"):
        predictor.predict([ROW], batch_size=0)


def test_a_cell_with_the_separator_of_the_one_string(exported: Get) -> None:
    predictor = Predictor(exported("multi_tower", "export_config.multi_placeholder=false", lists=True).path)
    with pytest.raises(PredictionError, match=r"Column 'gender': found 'f,m'; expected no ','"):
        predictor.predict([ROW | {"gender": "f,m"}])


def test_the_newest_version_is_taken(exported: Get, tmp_path: Path) -> None:
    path = exported("multi_tower", lists=True).path
    for name in ("9", "10"):
        (tmp_path / name).symlink_to(path)
    (tmp_path / "11").mkdir()  # holds no model
    (tmp_path / ".12.trash").symlink_to(path)
    assert Predictor(tmp_path).path == tmp_path / "10"
    assert Predictor(str(path)).path == path


def test_where_there_is_no_export(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PredictionError, match=re.escape(f"{path}: expected an exported model")) as caught:
            Predictor(path)
        assert "found none" in str(caught.value)
        assert "easyrec_lite.export" in str(caught.value)


def test_a_saved_model_of_someone_else(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(PredictionError, match=r"found no assets.description\.json"):
        Predictor(tmp_path)
