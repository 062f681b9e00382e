"""What every source promises, held against each of them."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_rows import FORMATS, Rows, to_lists, to_rows, write

from easyrec_lite.inputs import InputError, Position, Ragged, WindowedSource, open_source

pytestmark = pytest.mark.parametrize("kind", FORMATS)


def make_rows(count: int, first: int = 0) -> Rows:
    """Rows with a missing cell here and there; `id` is unique."""
    return [
        {
            "id": first + i,
            "price": None if i % 5 == 3 else i / 4,
            "word": None if i % 7 == 2 else f"w{i % 3} é",
        }
        for i in range(count)
    ]


def expected(rows: Rows) -> list[tuple[Any, ...]]:
    return [(row["id"], row["price"] or 0.0, row["word"] or "none") for row in rows]


def make_source(kind: str, folder: Path, parts: list[Rows], window: int = 65536, **options: Any) -> WindowedSource:
    config, data = write(kind, folder, parts)
    config.shuffle_window, config.shuffle_buffer_size = window, 1
    return open_source(config, data, **options)


def test_yields_rows_in_order_and_fills_missing_cells(kind: str, tmp_path: Path) -> None:
    parts = [make_rows(10), make_rows(5, first=10)]
    source = make_source(kind, tmp_path, parts, batch_size=6, shuffle=False)
    batches = list(source.read())
    assert [batch.rows for batch in batches] == [6, 6, 3]
    assert to_rows(batches) == expected(parts[0] + parts[1])
    assert batches[0].missing == {"price": 1, "word": 1}
    assert batches[2].columns["id"].dtype == np.int64
    assert batches[2].columns["price"].dtype == np.float32


def test_missing_numbers_get_their_default(kind: str, tmp_path: Path) -> None:
    rows: Rows = [{"id": 1, "price": 0.5, "word": "a"}, {"id": None, "price": 1.5, "word": "b"}]
    (batch,) = make_source(kind, tmp_path, [rows], batch_size=4, shuffle=False).read()
    assert to_lists(batch)["id"] == [1, -1]
    assert batch.missing == {"id": 1}


def test_reads_only_the_columns_asked_for_in_that_order(kind: str, tmp_path: Path) -> None:
    source = make_source(kind, tmp_path, [make_rows(3)], columns=["word", "id"], batch_size=3, shuffle=False)
    (batch,) = source.read()
    assert list(batch.columns) == ["word", "id"] == list(source.columns)


def test_last_batch_is_short_or_left_out_and_batches_span_epochs(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 4, "shuffle": False, "epochs": 2}
    source = make_source(kind, tmp_path, [make_rows(5)], **options)
    assert [to_lists(batch)["id"] for batch in source.read()] == [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4]]
    source = make_source(kind, tmp_path, [make_rows(5)], drop_remainder=True, **options)
    assert [batch.rows for batch in source.read()] == [4, 4]


def test_reads_for_ever_without_epochs(kind: str, tmp_path: Path) -> None:
    source = make_source(kind, tmp_path, [make_rows(5)], batch_size=4, epochs=None)
    assert sum(batch.rows for batch in itertools.islice(source.read(), 10)) == 40


def test_shuffles_every_epoch_differently_and_the_same_way_each_time(kind: str, tmp_path: Path) -> None:
    parts = [make_rows(40), make_rows(40, first=40)]
    options: dict[str, Any] = {"batch_size": 80, "epochs": 2}
    source = make_source(kind, tmp_path, parts, window=25, seed=3, **options)
    first, second = (to_lists(batch)["id"] for batch in source.read())
    assert sorted(first) == sorted(second) == list(range(80))
    assert first != second != list(range(80)) != first
    assert [to_lists(batch)["id"] for batch in source.read()] == [first, second]
    other = make_source(kind, tmp_path, parts, window=25, seed=4, **options)
    assert to_lists(next(other.read()))["id"] != first


def test_a_window_bounds_how_far_a_row_moves(kind: str, tmp_path: Path) -> None:
    source = make_source(kind, tmp_path, [make_rows(40)], window=8, batch_size=8)
    batches = [to_lists(batch)["id"] for batch in source.read()]
    assert [sorted(batch) for batch in batches] == [list(range(i, i + 8)) for i in range(0, 40, 8)]
    assert any(batch != sorted(batch) for batch in batches)


def test_position_after_the_last_row_yields_nothing(kind: str, tmp_path: Path) -> None:
    source = make_source(kind, tmp_path, [make_rows(9)], window=3, batch_size=4)
    *_, last = source.read()
    assert list(source.read(last.position)) == []


def test_refuses_positions_of_other_data_or_another_order(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    position = next(make_source(kind, tmp_path / "a", [make_rows(9)], batch_size=4).read()).position
    other_data = make_source(kind, tmp_path / "b", [make_rows(19)], batch_size=4)
    with pytest.raises(InputError, match=r"found 1 files? of \d+ bytes .* now .*; expected the data it was taken over"):
        other_data.read(position)
    other_seed = make_source(kind, tmp_path / "a", [make_rows(9)], batch_size=4, seed=9)
    with pytest.raises(
        InputError, match=r"with seed 9, .*; expected rows read shuffled with seed 1, in windows of 65536 rows"
    ):
        other_seed.read(position.to_json())
    with pytest.raises(InputError, match="expected the JSON of a position"):
        other_seed.read('{"partitions": {"0": 17}}')


def test_unknown_column_is_named_with_a_guess(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'pricee'.*did you mean 'price'") as caught:
        make_source(kind, tmp_path, [make_rows(3)], columns=["pricee", "id", "nope"])
    assert len(caught.value.problems) == 2  # type: ignore[attr-defined]


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    batch_size=st.integers(1, 50),
    window=st.integers(1, 45),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**40),
    shuffle=st.booleans(),
    data=st.data(),
)
def test_resumed_rows_are_those_that_would_have_followed(
    kind: str,
    sizes: list[int],
    batch_size: int,
    window: int,
    epochs: int,
    seed: int,
    shuffle: bool,
    data: st.DataObject,
) -> None:
    firsts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [make_rows(size, first) for size, first in zip(sizes, firsts, strict=True)]
    options: dict[str, Any] = {"batch_size": batch_size, "epochs": epochs, "seed": seed, "shuffle": shuffle}
    with tempfile.TemporaryDirectory() as folder:
        batches = list(make_source(kind, Path(folder), parts, window, **options).read())
        rows = to_rows(batches)
        total = sum(sizes)
        for epoch in range(epochs):
            assert sorted(rows[epoch * total : (epoch + 1) * total]) == expected(
                [row for part in parts for row in part]
            )
        stop = data.draw(st.integers(0, len(batches) - 1), label="stop")
        text = batches[stop].position.to_json()
        assert Position.from_json(text).to_json() == text
        resumed = list(make_source(kind, Path(folder), parts, window, **options).read(text))
    assert [to_lists(batch) for batch in resumed] == [to_lists(batch) for batch in batches[stop + 1 :]]
    assert [batch.missing for batch in resumed] == [batch.missing for batch in batches[stop + 1 :]]
    assert [batch.position for batch in resumed] == [batch.position for batch in batches[stop + 1 :]]
    assert not any(isinstance(column, Ragged) for batch in batches for column in batch.columns.values())
