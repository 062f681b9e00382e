"""`python -m easyrec_lite.index`, from a trained DSSM to the items that suit a user."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from command_runs import SAMPLES, Run, command, refused, small

from easyrec_lite.serving import ItemIndex, Predictor, item_index

USERS = ["user_id", "gender", "age_level", "shopping_level", "occupation", "city_level", "pvalue_level", "cms_segid"]
HISTORIES = ["hist_item_id", "hist_cate_id", "hist_brand_id"]


@pytest.fixture(scope="module")
def exports(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exports of a DSSM, one version."""
    model_dir = tmp_path_factory.mktemp("dssm") / "model"
    flags = small(SAMPLES / "dssm_taobao.config", data, model_dir)
    for name, more in (("train", ()), ("export", ("--export_dir", model_dir / "serving", "--parity_rows", 0))):
        run = command(name, *flags, *more)
        assert run.code == 0, run.err
    return model_dir / "serving"


@pytest.fixture(scope="module")
def users(data: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Rows of users, with nothing of items."""
    frame = pd.concat([pd.read_parquet(file) for file in sorted((data / "eval").glob("*.parquet"))])
    return frame[[*USERS, *HISTORIES]].reset_index(drop=True)


def index(exports: Path, items: Path, out: Path, *arguments: object, item_id: str = "item_id") -> Run:
    flags = ("--export_dir", exports, "--items", items, "--item_id", item_id, "--index_dir", out)
    return command("index", *flags, *arguments)


def test_the_best_item_is_the_one_that_the_model_scores_highest(
    exports: Path, data: Path, users: pd.DataFrame, tmp_path: Path
) -> None:
    users.to_parquet(tmp_path / "users.parquet")
    queries = ("--queries", tmp_path / "users.parquet", "--recall_k", 1, 10, "--max_queries", 50)
    run = index(exports, data / "items.parquet", tmp_path / "index", *queries)
    assert run.code == 0, run.err
    (version,) = exports.iterdir()
    about = json.loads((tmp_path / "index" / "index.json").read_text())
    assert (about["items"], about["dimension"], about["similarity"]) == (200, 64, "cosine")
    assert about["model"] == {"version": int(version.name), "step": 12}
    assert about["recall"]["queries"] == 50
    assert [(one["k"], one["recall"]) for one in about["recall"]["at"]] == [(1, 1.0), (10, 1.0)]
    assert "Against brute force, 50 users" in run.out
    assert "recall: not measured" not in run.out

    predictor, items = Predictor(version), pd.read_parquet(data / "items.parquet")
    found = ItemIndex(tmp_path / "index")
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    for row in range(0, 40, 5):
        pairs = items.assign(**{name: [users[name][row]] * len(items) for name in users})
        predicted = predictor.predict(pairs)
        ids, scores = found.search(predicted["user_tower_emb"][:1], 3)
        assert ids[0, 0] == items["item_id"][predicted["logits"].argmax()]
        # The model divides the cosine by its temperature.
        np.testing.assert_allclose(scores[0] / 0.05, np.sort(predicted["logits"])[::-1][:3], rtol=0, atol=1e-4)


def test_ids_of_text_from_a_file_of_text(exports: Path, data: Path, users: pd.DataFrame, tmp_path: Path) -> None:
    items = pd.read_parquet(data / "items.parquet")
    items.assign(sku=[f"sku-{i}" for i in items["item_id"]]).to_csv(tmp_path / "items.csv", index=False)
    users = users.head(30).copy()
    users[USERS] = users[USERS].astype("Int64")  # empty cells made floats of them
    for name in HISTORIES:  # text, as the export takes lists
        users[name] = ["|".join(map(str, steps)) for steps in users[name]]
    users.to_csv(tmp_path / "users.csv", index=False)
    for kind, parameter in (("hnsw", "efSearch=40"), ("ivf", "nprobe=2")):
        out = tmp_path / kind
        more = ("--index", kind, "--index_param", parameter, "--queries", tmp_path / "users.csv", "--batch_size", 64)
        run = index(exports, tmp_path / "items.csv", out, *more, item_id="sku")
        assert run.code == 0, run.err
        about = json.loads((out / "index.json").read_text())
        name, _, number = parameter.partition("=")
        assert about["index"]["parameters"][name] == int(number)
        assert [one["k"] for one in about["recall"]["at"]] == [10, 100]
        assert ItemIndex(out).ids.tolist() == [f"sku-{i}" for i in items["item_id"]]
    index(exports, data / "items.parquet", tmp_path / "whole", "--index", "none")
    np.testing.assert_allclose(ItemIndex(out).vectors, ItemIndex(tmp_path / "whole").vectors, rtol=0, atol=1e-6)


def test_without_faiss(exports: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "_faiss", lambda: None)
    message = refused(index(exports, data / "items.parquet", tmp_path / "index"))
    assert "pip install 'easyrec_lite[faiss]'" in message
    assert "--index none" in message
    assert list(tmp_path.iterdir()) == []
    run = index(exports, data / "items.parquet", tmp_path / "index", "--index", "none")
    assert run.code == 0, run.err
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == ["index.json", "vectors.parquet"]
    found = ItemIndex(tmp_path / "index")
    assert found.search(found.vectors[:3], 1)[0][:, 0].tolist() == found.ids[:3].tolist()


def test_rows_that_repeat_an_id(exports: Path, data: Path, tmp_path: Path) -> None:
    rows = pd.concat([pd.read_parquet(file) for file in sorted((data / "eval").glob("*.parquet"))])
    run = index(exports, data / "eval" / "*.parquet", tmp_path / "index")
    assert run.code == 0, run.err
    assert f"{len(rows) - rows['item_id'].nunique():,} rows repeat the id of an earlier row" in run.err
    assert ItemIndex(tmp_path / "index").ids.tolist() == rows["item_id"].drop_duplicates().tolist()
    assert "recall: not measured; name rows of users by --queries" in run.out


def test_items_that_do_not_fit(exports: Path, data: Path, tmp_path: Path) -> None:
    items = pd.read_parquet(data / "items.parquet")
    cases = {
        "missing": (items.drop(columns="price"), "column 'price', not in"),
        "no_id": (items.drop(columns="item_id"), "column 'item_id', not in"),
        "empty_id": (items.assign(sku=[None, *["a"] * (len(items) - 1)]), "found 1 rows without 'sku'"),
        "float_id": (items.assign(sku=0.5), "found numbers with fractions in 'sku'"),
        "lists": (items.assign(price=[[1.0]] * len(items)), "Column 'price': found lists; expected one value a row"),
    }
    for name, (frame, message) in cases.items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
        run = index(
            exports, tmp_path / f"{name}.parquet", tmp_path / "out", item_id="sku" if "sku" in frame else "item_id"
        )
        assert message in refused(run)
    assert "no such file" in refused(index(exports, tmp_path / "none.parquet", tmp_path / "out"))
    assert not list(tmp_path.glob("*out*"))


def test_arguments_that_do_not_fit(exports: Path, data: Path, trained: tuple[Path, Run], tmp_path: Path) -> None:
    items, out = data / "items.parquet", tmp_path / "out"
    assert "found 3; expected one of those in" in refused(index(exports, items, out, "--version", 3))
    assert "found no model that easyrec_lite exported" in refused(index(tmp_path / "nowhere", items, out))
    assert "'nprobe': index 'flat' has no such" in refused(index(exports, items, out, "--index_param", "nprobe=3"))
    assert "expected NAME=N" in refused(index(exports, items, out, "--index_param", "nprobe"))
    assert "--recall_k needs users" in refused(index(exports, items, out, "--recall_k", 3))
    assert "are of an index" in refused(index(exports, items, out, "--index", "none", "--queries", items))
    assert "column 'user_id', not in" in refused(index(exports, items, out, "--queries", items))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    assert "found files; expected nothing there" in refused(index(exports, items, tmp_path / "taken"))
    ranking = tmp_path / "ranking"
    run = command("export", "--model_dir", trained[0], "--export_dir", ranking, "--parity_rows", 0)
    assert run.code == 0, run.err
    message = refused(index(ranking, items, out))
    assert "expected item_embedding, which exports of two-tower models (DSSM) have" in message
    assert not list(tmp_path.glob("*out*"))


def test_an_interruption_leaves_nothing(
    exports: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(item_index.require_faiss(), "write_index", interrupted)
    assert index(exports, data / "items.parquet", tmp_path / "index").code == 130
    assert list(tmp_path.iterdir()) == []


def test_a_version_can_be_chosen(exports: Path, data: Path, tmp_path: Path) -> None:
    (version,) = exports.iterdir()
    for number, where in (((), version), (("--version", version.name), exports)):
        run = index(where, data / "items.parquet", tmp_path / where.name, "--index", "none", *number)
        assert run.code == 0, run.err
        table = pq.read_table(tmp_path / where.name / "vectors.parquet")
        assert json.loads(table.schema.metadata[b"easyrec_lite"])["version"] == int(version.name)
