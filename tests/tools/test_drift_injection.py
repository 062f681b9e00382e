"""Injected drifts change what they say, by as much as they say, from where they say."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easyrec_lite.errors import UserError
from tools.bench.drift import upper_bound
from tools.drift import KINDS, Drift, inject, main

ROWS, AT = 40_000, 10_000


@pytest.fixture(scope="module")
def table():
    random = np.random.default_rng(1)
    lengths = random.integers(0, 4, ROWS)
    splits = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    values = pa.array(random.integers(1, 500, lengths.sum()))
    ids = random.integers(1, 2000, ROWS)
    return pa.table(
        {
            "row": pa.array(np.arange(ROWS)),
            "clk": pa.array((random.random(ROWS) < 0.1).astype(np.int32)),
            "user": pa.array(ids, mask=random.random(ROWS) < 0.02),
            "name": pa.array([f"n{number % 300}" for number in ids]),
            "hist": pa.ListArray.from_arrays(splits, values),
            "price": pa.array(random.lognormal(3.0, 1.0, ROWS).astype(np.float32)),
            "part": pa.array((np.arange(ROWS) // 7 % 4).astype(np.int32)),
        }
    )


ALL = [
    Drift("label_rate_up", 0.2, AT, "clk"),
    Drift("label_rate_down", 0.2, AT, "clk"),
    Drift("label_flips", 0.05, AT, "clk"),
    Drift("missing", 0.05, AT, "user"),
    Drift("missing", 0.05, AT, "hist"),
    Drift("numeric_shift", 0.5, AT, "price"),
    Drift("new_ids", 0.1, AT, "user"),
    Drift("new_ids", 0.1, AT, "hist"),
    Drift("silent_partition", 2, AT, "part"),
    Drift("duplicates", 0.02, AT),
]


@pytest.mark.parametrize("drift", ALL, ids=str)
def test_rows_before_stay_and_the_seed_decides(table, drift):
    drifted = inject(table, drift)
    assert drifted.schema == table.schema
    assert drifted.slice(0, AT) == table.slice(0, AT)
    assert drifted.slice(AT) != table.slice(AT)
    assert inject(table, drift) == drifted
    if drift.kind not in ("numeric_shift", "silent_partition"):
        assert inject(table, Drift(drift.kind, drift.size, AT, drift.column, seed=2)) != drifted


@pytest.mark.parametrize("drift", ALL, ids=str)
def test_only_so_many_rows_may_change(table, drift):
    limited = Drift(drift.kind, drift.size, AT, drift.column, rows=5000)
    drifted = inject(table, limited)
    assert drifted.slice(drifted.num_rows - (ROWS - AT - 5000)) == table.slice(AT + 5000)


def column(drifted, name):
    return drifted[name].slice(AT).to_numpy(zero_copy_only=False)


@pytest.mark.parametrize(("kind", "factor"), [("label_rate_up", 1.2), ("label_rate_down", 0.8)])
def test_label_rates(table, kind, factor):
    found = column(inject(table, Drift(kind, 0.2, AT, "clk")), "clk")
    assert found.mean() == pytest.approx(factor * column(table, "clk").mean(), rel=0.03)
    changed = found != column(table, "clk")
    assert (found[changed] == (factor > 1)).all()


def test_label_flips(table):
    found = column(inject(table, Drift("label_flips", 0.05, AT, "clk")), "clk")
    assert (found != column(table, "clk")).mean() == pytest.approx(0.05, rel=0.1)


def test_missing_values(table):
    drifted = inject(table, Drift("missing", 0.05, AT, "user"))
    before, after = (one["user"].slice(AT).null_count / (ROWS - AT) for one in (table, drifted))
    assert after - before == pytest.approx(0.05, abs=0.005)
    lists = inject(table, Drift("missing", 0.05, AT, "hist"))["hist"].slice(AT)
    assert lists.null_count / (ROWS - AT) == pytest.approx(0.05, abs=0.005)


def test_shifts(table):
    prices = table["price"].to_numpy().astype(float)
    found = column(inject(table, Drift("numeric_shift", 0.5, AT, "price")), "price")
    np.testing.assert_allclose(found - prices[AT:], 0.5 * prices.std(), rtol=1e-3)
    found = column(inject(table, Drift("numeric_shift", 0.5, AT, "price", log=True)), "price")
    np.testing.assert_allclose(np.log(found) - np.log(prices[AT:]), 0.5 * np.log(prices).std(), rtol=1e-3)


def test_new_ids_are_new_in_all_their_rows(table):
    drifted = inject(table, Drift("new_ids", 0.1, AT, "user"))
    before, after = (one["user"].slice(AT).to_pandas() for one in (table, drifted))
    new = after > 2000
    known = set(before.dropna())
    assert len(set(before[new])) / len(known) == pytest.approx(0.1, abs=0.03)
    assert not set(before[new]) & set(after[~new].dropna())
    assert (after.isna() == before.isna()).all()
    names = inject(table, Drift("new_ids", 0.1, AT, "name"))["name"].slice(AT).to_pandas()
    assert names.str.endswith("~new").mean() == pytest.approx(0.1, abs=0.06)
    lists = inject(table, Drift("new_ids", 0.1, AT, "hist"))["hist"].slice(AT)
    values = lists.combine_chunks().flatten().to_numpy()
    assert (values >= 500).mean() == pytest.approx(0.1, abs=0.05)
    assert [len(one) for one in lists.to_pylist()] == [len(one) for one in table["hist"].slice(AT).to_pylist()]


def test_silent_partitions(table):
    drifted = inject(table, Drift("silent_partition", 2, AT, "part"))
    assert set(column(drifted, "part")) == {0, 1, 3}
    in_turn = inject(table, Drift("silent_partition", 2, AT + 1, partitions=4))
    assert set(column(in_turn, "row")[1:] % 4) == {0, 1, 3}


def test_repeated_rows_come_soon(table):
    drifted = inject(table, Drift("duplicates", 0.02, AT))
    rows = column(drifted, "row")
    assert len(rows) / (ROWS - AT) == pytest.approx(1.02, abs=0.003)
    order = np.argsort(rows, kind="stable")
    again = np.diff(order)[np.diff(rows[order]) == 0]
    assert len(again) == len(rows) - (ROWS - AT)
    assert again.min() >= 1
    assert again.max() <= 1000 * 1.05


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        ({"kind": "earthquake", "size": 1}, "expected one of label_rate_up"),
        ({"kind": "missing", "size": 0.1}, "column: missing needs"),
        ({"kind": "missing", "size": 2, "column": "user"}, "a share from 0 to 1"),
        ({"kind": "missing", "size": 0.99, "column": "user"}, "only 98"),
        ({"kind": "missing", "size": 0.1, "column": "usr"}, "no column 'usr'"),
        ({"kind": "label_flips", "size": 0.1, "column": "price"}, "expected a 0/1 label"),
        ({"kind": "label_rate_up", "size": 20, "column": "clk"}, "can't rise"),
        ({"kind": "numeric_shift", "size": 1, "column": "name"}, "takes numbers"),
        ({"kind": "numeric_shift", "size": 1, "column": "part", "log": True}, "positive numbers"),
        ({"kind": "new_ids", "size": 0.1, "column": "price"}, "integers or strings"),
        ({"kind": "duplicates", "size": 0.1, "at_row": -1}, "at_row from 0 on"),
    ],
)
def test_drifts_that_do_not_fit(table, drift, words):
    with pytest.raises(UserError, match=words):
        inject(table, Drift(**drift))


def test_beyond_the_rows_nothing_happens(table):
    assert inject(table, Drift("duplicates", 0.5, ROWS + 5)) == table
    batch = table.slice(0, 100).combine_chunks().to_batches()[0]
    assert inject(batch, Drift("label_flips", 1.0, 0, "clk"))["clk"].to_pylist() == [
        1 - label for label in batch["clk"].to_pylist()
    ]


def test_the_command(table, tmp_path, capsys):
    pq.write_table(table.slice(0, 20_000), tmp_path / "a.parquet")
    pq.write_table(table.slice(20_000), tmp_path / "b.parquet")
    out = tmp_path / "drifted.parquet"
    options = ["--kind", "label_flips", "--size", "0.05", "--column", "clk", "--at", str(AT)]
    assert main(["--data", str(tmp_path / "[ab].parquet"), "--out", str(out), *options]) == 0
    assert "40,000 rows (40,000 before), label_flips from row 10,000" in capsys.readouterr().out
    assert pq.read_table(out).equals(inject(table, Drift("label_flips", 0.05, AT, "clk")))
    assert main(["--data", str(tmp_path / "none"), "--out", str(out), *options]) == 2


def test_every_kind_is_tried():
    assert {drift.kind for drift in ALL} == set(KINDS)


def test_upper_bounds():
    assert upper_bound(0, 500) == pytest.approx(1 - 0.05 ** (1 / 500), rel=1e-6)
    assert upper_bound(2, 10) == pytest.approx(0.5069, abs=1e-4)
    assert upper_bound(3, 3) == 1.0
