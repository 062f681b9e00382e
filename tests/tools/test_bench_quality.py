import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tools.bench import _common, movielens, parity, taobao
from tools.bench._common import BenchError
from tools.bench.movielens import Runs
from tools.bench.taobao import Ranked, Retrieved
from tools.data.taobao_like import generate

# ---- MovieLens


def test_the_mean_is_compared_with_every_config_of_easyrec():
    assert Runs("multi_tower_movielens", [1, 2], [0.8610, 0.8620], [0.78, 0.79]).reached
    assert not Runs("multi_tower_movielens", [1], [0.8613], [0.79]).reached
    assert not Runs("deepfm_movielens", [1], [0.8685], [0.79]).reached  # above the classic, below the backbone
    assert Runs("deepfm_movielens", [1], [0.8693], [0.79]).reached
    assert Runs("mine", [1], [0.5], [0.5]).reached is None


def test_seeds_and_paths_reach_the_command(tmp_path, monkeypatch, capsys):
    for name in ("train", "test"):
        (tmp_path / f"{name}.parquet").touch()
    calls = []

    def train(config, model_dir, train_path, eval_path, edits):
        calls.append((train_path, eval_path, list(edits)))
        return {"auc": 0.8 + 0.01 * len(calls), "gauc": 0.7}

    monkeypatch.setattr(_common, "train", train)
    flags = ["--data", str(tmp_path), "--seeds", "3", "--edit", "a=b", "--json", str(tmp_path / "out.json")]
    config = str(_common.SAMPLES / "multi_tower_movielens.config")
    assert movielens.main([*flags, "--configs", config]) == 1
    paths = (str(tmp_path / "train.parquet"), str(tmp_path / "test.parquet"))
    assert calls == [(*paths, [f"train_config.seed={seed}", "a=b"]) for seed in (1, 2, 3)]
    line = next(line.split() for line in capsys.readouterr().out.splitlines() if " AUC " in line)
    assert line[1:] == ["AUC", "0.8200", "0.0100", "0.8100", "0.8300", "3", "0.8614", "(backbone)", "NO"]
    [runs] = json.loads((tmp_path / "out.json").read_text())["results"]
    assert runs["auc"] == pytest.approx([0.81, 0.82, 0.83])
    assert runs["reached"] is False


def test_missing_data_is_told(tmp_path, capsys):
    assert movielens.main(["--data", str(tmp_path)]) == 2
    assert "tools.data.movielens" in capsys.readouterr().err
    assert taobao.main(["--data", str(tmp_path)]) == 2
    assert "tools.data.taobao_like" in capsys.readouterr().err


# ---- generated ads data


def test_recall_by_hand():
    users = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    items = np.array([[1, 0], [0, 2], [0.4, 0.4]], np.float32)
    ids = np.array([30, 10, 20])
    # Scores of the users: (1, 0, .4), (0, 2, .4), (1, 2, .8) of the items 30, 10, 20.
    assert taobao.recall(users, np.array([30, 20, 30]), items, ids, top=1) == pytest.approx(1 / 3)
    assert taobao.recall(users, np.array([30, 20, 30]), items, ids, top=2) == 1.0
    assert taobao.recall(users, np.array([10, 30, 20]), items, ids, top=2) == 0.0


def test_recall_of_a_model_that_knows_nothing_is_none():
    users, items = np.ones((5, 2), np.float32), np.ones((40, 2), np.float32)
    assert taobao.recall(users, np.arange(5), items, np.arange(40), 10) == 0


def test_recall_needs_the_targets_among_the_items():
    one = np.ones((1, 1), np.float32)
    with pytest.raises(BenchError, match="8"):
        taobao.recall(one, np.array([8]), one, np.array([7]), 10)


def test_most_clicked():
    rows = pa.table({"item_id": [5, 5, 7, 7, 7, 9, 9], "clk": [1, 1, 1, 0, 0, 0, 0]})
    assert taobao.most_clicked(rows, 2).tolist() == [5, 7]


def test_item_rows_take_the_other_columns_from_the_first_row():
    items = pa.table({"item_id": [1, 2], "price": [0.5, 0.25]})
    rows = pa.table({"user_id": [8, 9], "item_id": [2, 2], "hist": [[1, 2], [3]], "price": [0.25, 0.25]})
    expected = {"item_id": [1, 2], "price": [0.5, 0.25], "user_id": [8, 8], "hist": [[1, 2], [1, 2]]}
    assert taobao.item_rows(items, rows).to_pydict() == expected


def test_the_share_of_the_distance(capsys):
    ranked = Ranked("din", auc=0.76, best=0.8, popularity=0.6)
    assert ranked.closed == pytest.approx(0.8)
    assert not Ranked("din", 0.75, 0.8, 0.6).reached
    retrieved = Retrieved("dssm", 0.12, 0.04, 100, 1000)
    assert retrieved.times == pytest.approx(3)
    assert not Retrieved("dssm", 0.11, 0.04, 100, 1000).reached
    taobao.show([ranked, retrieved])
    shown = capsys.readouterr().out
    assert "80.0%" in shown
    assert "recall@10" in shown


@pytest.fixture(scope="module")
def ads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ads")
    generate(folder, 4000, eval_rows=2000, users=300, items=200, seed=3)
    return folder


def test_popularity_is_that_of_the_generator(ads):
    rows = pq.read_table(ads / "eval", columns=["item_id", "clk"])
    clicked = rows["item_id"].to_numpy()[rows["clk"].to_numpy() == 1]
    top = taobao.most_clicked(pq.read_table(ads / "train", columns=["item_id", "clk"]))
    figures = json.loads((ads / "meta.json").read_text())["figures"]
    # Items of equal counts may go either way.
    assert np.isin(clicked, top).mean() == pytest.approx(figures["popularity_recall_at_10"], abs=0.02)


@pytest.mark.slow
def test_models_are_trained_and_judged(ads, tmp_path):
    path = tmp_path / "out.json"
    taobao.main(["--data", str(ads), "--models", "dssm", "dbmtl", "--json", str(path)])
    dssm, dbmtl = json.loads(path.read_text())["results"]
    assert dssm["items"] == 200
    assert 0 < dssm["recall"] < 1
    assert 0.3 < dbmtl["auc"] < dbmtl["best"]


@pytest.mark.slow
def test_movielens_is_trained(tmp_path):
    generator = np.random.default_rng(0)
    columns = {
        "label": generator.integers(0, 2, 2000),
        **{name: generator.integers(0, size, 2000) for name, size in {"user_id": 20, "movie_id": 30}.items()},
        **{name: generator.integers(0, size, 2000) for name, size in {"gender": 2, "age": 7, "job_id": 21}.items()},
        "year": generator.integers(1919, 2001, 2000),
        "genres": ["Drama|War"] * 2000,
        "title": ["A Quiet Film"] * 2000,
    }
    for name in ("train", "test"):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    runs = movielens.run(_common.SAMPLES / "deepfm_movielens.config", tmp_path, [1])
    assert 0.3 < runs.auc[0] < 1


# ---- Parity


def test_parity_is_measured_of_every_sample_on_files():
    there = {path.stem for path in _common.SAMPLES.glob("*.config") if not path.stem.endswith("_stream")}
    assert {f"{model}_{data}" for data, models in parity.SAMPLES.items() for model in models} == there


def test_a_parity_report_is_read(tmp_path, monkeypatch, capsys):
    def python(arguments):
        assets = Path(arguments[arguments.index("--export_dir") + 1]) / "1" / "assets"
        assets.mkdir(parents=True)
        found = [{"way": "user, score", "output": name, "absolute": size} for name, size in (("a", 2e-6), ("b", 3e-7))]
        (assets / "parity.json").write_text(json.dumps({"rows": 7, "requests": 3, "differences": found}))

    monkeypatch.setattr(_common, "train", lambda *arguments: {})
    monkeypatch.setattr(_common, "python", python)
    assert parity.main(["--taobao", str(tmp_path), "--rows", "7"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["din_taobao", "7", "3", "2.0e-06"] in lines
    assert len(lines) == 3 + len(parity.SAMPLES["taobao"])


def test_parity_needs_rows(capsys):
    with pytest.raises(SystemExit) as ended:
        parity.main([])
    assert ended.value.code == 2
    assert "--taobao DIR" in capsys.readouterr().err
