import json
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tools.data import taobao_like
from tools.data._ads_report import auc
from tools.data._random import Scatter, Stream, zipf_rank, zipf_share

LISTS = ("hist_item_id", "hist_cate_id", "hist_brand_id")
DIGEST = 2024072644
PROFILE = ("gender", "age_level", "shopping_level", "occupation", "city_level", "pvalue_level", "cms_segid")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ads")
    meta = taobao_like.generate(folder, 60_000, eval_rows=40_000, seed=5)
    return folder, meta


@pytest.fixture(scope="module")
def rows(small):
    return pq.read_table(small[0] / "train"), pq.read_table(small[0] / "eval")


def test_auc_by_hand():
    # Pairs (positive, negative): 0.9 > 0.1, 0.9 > 0.5, 0.5 > 0.1, 0.5 = 0.5.
    assert auc([0.9, 0.5, 0.1, 0.5], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)
    assert np.isnan(auc([0.1, 0.2], [1, 1]))


def test_auc_of_expectations_is_the_mean_over_coins():
    generator = np.random.default_rng(0)
    expected = generator.uniform(0.05, 0.6, 2000)
    score = expected + generator.normal(0, 0.2, 2000)
    tosses = [auc(score, generator.uniform(size=2000) < expected) for _ in range(50)]
    assert auc(score, expected) == pytest.approx(np.mean(tosses), abs=0.005)


def test_random_streams_are_uniform_normal_and_addressable():
    stream = Stream(3, "a")
    uniform, normal = stream.uniform(np.arange(100_000)), stream.normal(np.arange(100_000))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert np.bincount((uniform * 10).astype(int)) == pytest.approx(10_000, abs=400)
    assert normal.mean() == pytest.approx(0, abs=0.015)
    assert normal.std() == pytest.approx(1, abs=0.015)
    assert (np.abs(normal) > 1.96).mean() == pytest.approx(0.05, abs=0.005)
    assert stream.uniform([7])[0] == uniform[7]
    assert Stream(4, "a").uniform([7])[0] != uniform[7]
    assert Stream(3, "b").uniform([7])[0] != uniform[7]
    assert stream.uniform(1, [2])[0] != stream.uniform(2, [1])[0]


def test_zipf_rank_has_the_stated_shares():
    rank = zipf_rank(Stream(1, "z").uniform(np.arange(200_000)), 50, 1.0, 2.0)
    shares = zipf_share(np.arange(50), 50, 2.0)
    assert shares.sum() == pytest.approx(1.0)
    assert np.bincount(rank, minlength=50) / 200_000 == pytest.approx(shares, abs=0.003)


@pytest.mark.parametrize("size", [1, 2, 12, 1000, 49_999])
def test_scatter_is_one_to_one(size):
    assert np.array_equal(np.sort(Scatter(size, 1, "x")(np.arange(size))), np.arange(size))


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_chunks_do_not_change_a_byte(tmp_path, format):
    sizes = {"rows": 3000, "users": 500, "items": 2000, "seed": 2, "format": format}
    for chunk_rows in (65_536, 700, 1):
        if chunk_rows == 1:
            sizes |= {"rows": 40}
            taobao_like.generate(tmp_path / "whole", chunk_rows=65_536, overwrite=True, **sizes)
        taobao_like.generate(tmp_path / str(chunk_rows), chunk_rows=chunk_rows, **sizes)
        whole = tmp_path / ("whole" if chunk_rows == 1 else "65536")
        files = sorted(path.relative_to(whole) for path in whole.rglob(f"*.{format}"))
        assert len(files) == 3
        for file in files:
            assert (tmp_path / str(chunk_rows) / file).read_bytes() == (whole / file).read_bytes()


def test_first_rows_never_change():
    generator = taobao_like.Generator(taobao_like.Parameters(rows=1000, eval_rows=100))
    seen, viewed, labels = generator.make(0, 500)
    digest = 0
    for values in (seen.user, seen.item, seen.pid, seen.views, viewed.item, labels.click, labels.buy):
        digest = zlib.crc32(values.astype("<i8").tobytes(), digest)
    assert digest == DIGEST, "other rows for the same parameters: raise taobao_like._VERSION"


def test_seeds_differ():
    first, second = (
        taobao_like.Generator(taobao_like.Parameters(100, 10, seed=seed)).make(0, 100)[0] for seed in (1, 2)
    )
    assert not np.array_equal(first.item, second.item)


def test_columns_and_ranges(rows):
    train, evaluation = rows
    assert train.num_rows == 60_000
    assert evaluation.num_rows == 40_000
    assert train.schema == evaluation.schema
    for name, levels in zip(PROFILE, (2, 7, 3, 8, 4, 3, 98), strict=True):
        values = train[name].drop_null().to_numpy()
        assert values.min() == 1
        assert values.max() == levels
        assert 0 < train[name].null_count < 0.3 * train.num_rows
    for name, most in (("user_id", 100_000), ("item_id", 50_000)):
        assert train[name].to_numpy().min() >= 1
        assert train[name].to_numpy().max() <= most
    log_price = np.log(train["price"].to_numpy())
    assert np.abs(np.mean(((log_price - log_price.mean()) / log_price.std()) ** 3)) < 0.5
    buy, click = train["buy"].to_numpy(), train["clk"].to_numpy()
    assert set(click) == {0, 1}
    assert np.all(click[buy == 1] == 1)
    assert np.all(train["expected_buy"].to_numpy() <= train["expected_clk"].to_numpy())


def test_time_runs_on_and_gives_hour_and_weekday(rows):
    times = [part["event_time"].to_numpy() for part in rows]
    both = np.concatenate(times)
    assert np.all(np.diff(both) >= 0)
    stamps = both.astype("datetime64[s]")
    hour = np.concatenate([part["hour"].to_numpy() for part in rows])
    weekday = np.concatenate([part["weekday"].to_numpy() for part in rows])
    assert np.array_equal(hour, stamps.astype("datetime64[h]").astype(int) % 24)
    assert np.array_equal(weekday, (stamps.astype("datetime64[D]").astype(int) + 3) % 7)  # 1970-01-01: a Thursday


def test_items_are_the_same_everywhere(small, rows):
    items = pq.read_table(small[0] / "items.parquet")
    assert np.array_equal(items["item_id"].to_numpy(), np.arange(1, 50_001))
    train = rows[0]
    place = train["item_id"].to_numpy() - 1
    for name in ("cate_id", "brand_id", "customer_id", "price"):
        assert np.array_equal(items[name].to_numpy()[place], train[name].to_numpy())
    viewed = train["hist_item_id"].combine_chunks().flatten().to_numpy() - 1
    for name in ("cate_id", "brand_id"):
        assert np.array_equal(
            items[name].to_numpy()[viewed], train[f"hist_{name}"].combine_chunks().flatten().to_numpy()
        )


def test_histories_move_on_with_time(rows):
    train = rows[0]
    lengths = train["hist_item_id"].combine_chunks().value_lengths().to_numpy()
    assert lengths.max() == 50
    assert 15 < lengths.mean() < 23
    assert 0.01 < (lengths == 0).mean() < 0.1
    user = train["user_id"].to_numpy()
    busiest = np.flatnonzero(user == np.bincount(user).argmax())
    histories = train["hist_item_id"].take(busiest[[0, -1]]).to_pylist()
    new = next(n for n in range(51) if histories[1][n:] == histories[0][: len(histories[1]) - n])
    assert new < 50


def test_ids_are_zipf_distributed(rows):
    for name in ("item_id", "user_id"):
        count = np.sort(np.bincount(rows[0][name].to_numpy()))[::-1]
        ranks = np.arange(100, 5000)
        slope = np.polyfit(np.log(ranks), np.log(count[ranks]), 1)[0]
        assert -1.2 < slope < -0.5
        assert count[0] < 0.01 * count.sum()


@pytest.mark.parametrize("label", ["clk", "buy"])
def test_labels_match_their_expectations(rows, label):
    expected = np.concatenate([part[f"expected_{label}"].to_numpy() for part in rows]).astype(np.float64)
    actual = np.concatenate([part[label].to_numpy() for part in rows])
    bins = np.searchsorted(np.quantile(expected, np.arange(0.1, 1, 0.1)), expected)
    difference = np.bincount(bins, weights=actual - expected)
    variance = np.bincount(bins, weights=expected * (1 - expected))
    assert (difference**2 / variance).sum() < 30  # chi-square with 10 degrees of freedom: one in a thousand


def test_figures(small, rows):
    folder, meta = small
    assert json.loads((folder / "meta.json").read_text()) == meta
    figures = meta["figures"]
    evaluation = rows[1]
    assert figures["best_auc_click"] == pytest.approx(
        auc(evaluation["expected_clk"].to_numpy(), evaluation["clk"].to_numpy()), abs=1e-5
    )
    without = figures["best_auc_click_without_histories"]
    assert without["falls_by"] > 0.02
    assert without["auc_new_user"] < without["auc"]
    assert 0.5 < figures["popularity_auc_click"] < figures["best_auc_click"] - 0.1
    assert figures["recall_at_10_of_hidden_interests"] > 3 * figures["popularity_recall_at_10"]
    odds = figures["click_log_odds"]
    assert sum(odds["share_by_factor"].values()) == pytest.approx(1)
    assert sum(odds["unlearnable_share"].values()) < 0.1
    assert "best possible" in taobao_like.describe(meta)


def test_popularity_figures_by_another_way(small, rows):
    train, evaluation = (part.select(["item_id", "clk"]).to_pandas() for part in rows)
    by_item = train.groupby("item_id")["clk"].agg(["sum", "count"])
    rate = train["clk"].mean()
    score = ((by_item["sum"] + 30 * rate) / (by_item["count"] + 30)).reindex(evaluation["item_id"]).fillna(rate)
    figures = small[1]["figures"]
    assert auc(score, evaluation["clk"]) == pytest.approx(figures["popularity_auc_click"], abs=1e-4)
    tenth = by_item["sum"].nlargest(10).iloc[-1]
    clicked = evaluation[evaluation["clk"] == 1]["item_id"]
    sure = clicked.isin(by_item.index[by_item["sum"] > tenth]).mean()
    possible = clicked.isin(by_item.index[by_item["sum"] >= tenth]).mean()
    assert sure <= figures["popularity_recall_at_10"] <= possible


def test_interests_given_follow_the_conditional_distribution():
    population = taobao_like.Generator(taobao_like.Parameters(10, 10)).population
    seen = population.impressions(np.arange(50_000), np.full(50_000, 1_704_500_000))
    category = population.catalogue.category[seen.item]
    own = population.interests(seen.user, seen.profile["cms_segid"]) == category[:, None]
    drawn = population.interests_given(seen, replica=1) == category[:, None]
    # For the pair (profile, category), drawn interests are as good as the user's own.
    assert drawn.mean(axis=0) == pytest.approx(own.mean(axis=0), abs=0.01)
    assert drawn.any(axis=1).mean() == pytest.approx(own.any(axis=1).mean(), abs=0.01)


def test_csv_holds_the_same_rows(tmp_path):
    for format in ("csv", "parquet"):
        taobao_like.generate(tmp_path / format, 500, users=100, items=300, format=format)
    text = pa.csv.read_csv(
        tmp_path / "csv/train/part-00000.csv",
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(LISTS, pa.string()), strings_can_be_null=False
        ),
    )
    table = pq.read_table(tmp_path / "parquet/train/part-00000.parquet")
    assert text.column_names == table.column_names
    for name in table.column_names:
        want, found = table[name].to_pylist(), text[name].to_pylist()
        if name in LISTS:
            want = ["|".join(map(str, values)) for values in want]
        assert found == (pytest.approx(want) if name.startswith(("expected", "price")) else want)


def test_files_and_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(taobao_like, "ROW_GROUP", 100)
    monkeypatch.setattr(taobao_like, "_FILE_ROWS", 400)
    taobao_like.generate(tmp_path, 950, eval_rows=50, users=100, items=300)
    files = sorted((tmp_path / "train").iterdir())
    assert [path.name for path in files] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    metadata = [pq.ParquetFile(path).metadata for path in files]
    groups = [[part.row_group(i).num_rows for i in range(part.num_row_groups)] for part in metadata]
    assert groups == [[100] * 4, [100] * 4, [100, 50]]


def test_other_data_is_not_overwritten_unasked(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--rows", "300", "--users", "50", "--items", "100"]
    assert taobao_like.main(arguments) == 0
    written = (tmp_path / "meta.json").stat().st_mtime_ns
    assert taobao_like.main(arguments) == 0
    assert (tmp_path / "meta.json").stat().st_mtime_ns == written
    assert taobao_like.main([*arguments, "--seed", "9"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert taobao_like.main([*arguments, "--seed", "9", "--overwrite"]) == 0
    assert json.loads((tmp_path / "meta.json").read_text())["parameters"]["seed"] == 9


@pytest.mark.parametrize("wrong", [["--rows", "0"], ["--users", "0"], ["--items", "3"], ["--eval_rows", "-1"]])
def test_wrong_parameters_exit_with_2(tmp_path, capsys, wrong):
    assert taobao_like.main(["--out", str(tmp_path / "new"), *wrong]) == 2
    assert "Received" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
