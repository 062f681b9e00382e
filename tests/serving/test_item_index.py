"""The index of items finds what NumPy finds, and its directory is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exports import SIDES, Exported, columns_of, request_rows, served

from easyrec_lite.serving import ItemIndex, ItemIndexError, LoadedModel, item_index
from easyrec_lite.serving.item_index import ABOUT, INDEX, VECTORS, index_parameters, measure, write_item_index

Vectors = np.ndarray


def random_vectors(count: int, dimension: int = 8, seed: int = 3) -> Vectors:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def clustered(count: int, dimension: int = 16, seed: int = 4) -> Vectors:
    """Vectors of length 1 around 50 centres, as items of a trained cosine model lie."""
    rng = np.random.default_rng(seed)
    vectors = random_vectors(50, dimension, seed=1)[rng.integers(0, 50, count)]
    vectors = vectors + 0.3 * rng.normal(size=vectors.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write(path: Path, vectors: Vectors, ids: pa.Array | None = None, step: int = 64, **options: Any) -> dict[str, Any]:
    """An index of these vectors, which come a few at a time."""
    ids = pa.array(np.arange(len(vectors)) * 10 - 70) if ids is None else ids
    batches = ((ids[i : i + step], vectors[i : i + step]) for i in range(0, len(vectors), step))
    model = {"version": 12, "step": 7}
    return write_item_index(path, "item_id", batches, similarity="inner_product", model=model, **options)


def best(items: Vectors, queries: Vectors, k: int) -> tuple[Vectors, Vectors]:
    """Places and scores of the best items, the best first."""
    scores = queries.astype(np.float64) @ items.T.astype(np.float64)
    places = np.argsort(-scores, axis=1)[:, :k]
    return places, np.take_along_axis(scores, places, axis=1)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("way", ["faiss", "exact", "no index", "no faiss"])
def test_search_finds_what_numpy_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bool, way: str) -> None:
    items, queries = random_vectors(300), random_vectors(40, seed=9)
    ids = pa.array([f"sku-{i:03}" for i in range(300)]) if text else pa.array(2**62 - np.arange(300))
    write(tmp_path / "index", items, ids, kind=None if way == "no index" else "flat")
    if way == "no faiss":
        monkeypatch.setattr(item_index, "_faiss", lambda: None)
    index = ItemIndex(tmp_path / "index", exact=way == "exact")
    assert index.uses_faiss == (way == "faiss")
    for k in (1, 10, 300):
        found, scores = index.search(queries, k)
        places, expected = best(items, queries, k)
        np.testing.assert_array_equal(found, np.array(ids.to_pylist(), object if text else np.int64)[places])
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
    assert found.dtype == (object if text else np.int64)


def test_what_is_written(tmp_path: Path) -> None:
    items = random_vectors(300)
    about = write(tmp_path / "index", items, kind="flat", queries=items[:5], ks=(10, 1000))
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == [ABOUT, INDEX, VECTORS]
    assert json.loads((tmp_path / "index" / ABOUT).read_text()) == about
    assert about["index"] == {"kind": "flat", "parameters": {}, "faiss": faiss.__version__}
    assert [about[name] for name in ("items", "dimension", "duplicates")] == [300, 8, 0]
    assert about["model"] == {"version": 12, "step": 7}
    assert [(one["k"], one["recall"]) for one in about["recall"]["at"]] == [(10, 1.0), (300, 1.0)]
    assert all(one["index_ms"] > 0 < one["exact_ms"] for one in about["recall"]["at"])
    table = pq.read_table(tmp_path / "index" / VECTORS)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 8)
    assert table["item_id"].to_pylist()[:3] == [-70, -60, -50]
    np.testing.assert_array_equal(np.stack(table["vector"].to_pylist()).astype(np.float32), items)
    assert json.loads(table.schema.metadata[b"easyrec_lite"]) == {
        "similarity": "inner_product",
        "metric": "inner_product",
        "version": 12,
        "step": 7,
    }


@pytest.mark.parametrize(
    ("kind", "parameters", "least"),
    [("hnsw", {}, 0.98), ("ivf", {"nprobe": 16}, 0.95), ("hnsw", {"M": 4, "efConstruction": 8, "efSearch": 1}, 0.1)],
)
def test_recall_of_approximate_indexes(tmp_path: Path, kind: str, parameters: dict[str, int], least: float) -> None:
    items, queries = clustered(4000), clustered(100, seed=5)
    about = write(tmp_path / "index", items, kind=kind, parameters=parameters, step=1000)
    index = ItemIndex(tmp_path / "index")
    (found,) = measure(index, queries, [10])
    # Counted anew from ids: with these vectors nothing ties.
    expected, _ = ItemIndex(tmp_path / "index", exact=True).search(queries, 10)
    ids, scores = index.search(queries, 10)
    shared = [len(set(one) & set(other)) for one, other in zip(ids.tolist(), expected.tolist(), strict=True)]
    assert found.recall == pytest.approx(sum(shared) / 1000)
    assert least <= found.recall <= 1
    assert (np.diff(scores, axis=1) <= 0).all()
    used = about["index"]["parameters"]
    assert used == {**index_parameters(kind, parameters), **({"nlist": 102} if kind == "ivf" else {})}


def test_parameters_are_kept_with_the_index(tmp_path: Path) -> None:
    items = clustered(500)
    write(tmp_path / "hnsw", items, kind="hnsw", parameters={"efSearch": 33, "M": 6})
    write(tmp_path / "ivf", items, kind="ivf", parameters={"nlist": 7, "nprobe": 9})
    hnsw, ivf = (faiss.read_index(str(tmp_path / kind / INDEX)) for kind in ("hnsw", "ivf"))
    assert (hnsw.hnsw.efSearch, hnsw.hnsw.nb_neighbors(1), hnsw.metric_type) == (33, 6, faiss.METRIC_INNER_PRODUCT)
    assert ivf.metric_type == faiss.METRIC_INNER_PRODUCT
    assert (ivf.nlist, ivf.nprobe) == (7, 7)  # no more lists are searched than there are


def test_all_wanted_items_are_found_where_the_index_looks_at_too_few(tmp_path: Path) -> None:
    items, queries = clustered(400), clustered(20, seed=6)
    write(tmp_path / "index", items, kind="ivf", parameters={"nlist": 40, "nprobe": 1})
    index = ItemIndex(tmp_path / "index")
    ids, scores = index.search(queries, 200)
    assert all(len(set(row)) == 200 for row in ids.tolist())
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(ids, ItemIndex(tmp_path / "index", exact=True).search(queries, 200)[0])


def test_items_that_are_alike_are_no_misses(tmp_path: Path) -> None:
    items = np.repeat(random_vectors(4), 25, axis=0)
    write(tmp_path / "index", items[np.random.default_rng(0).permutation(100)], kind="flat")
    assert [one.recall for one in measure(ItemIndex(tmp_path / "index"), random_vectors(30, seed=2), [5, 30])] == [1, 1]


def test_of_one_id_the_first_row_counts(tmp_path: Path) -> None:
    items = random_vectors(6)
    about = write(tmp_path / "index", items, pa.array([5, 6, 5, 7, 6, 5]), step=2)
    assert (about["items"], about["duplicates"]) == (3, 3)
    index = ItemIndex(tmp_path / "index")
    assert index.ids.tolist() == [5, 6, 7]
    np.testing.assert_array_equal(index.vectors, items[[0, 1, 3]])


def test_writing_that_ends_early_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut() -> Iterator[tuple[pa.Array, Vectors]]:
        yield pa.array([1, 2]), random_vectors(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_item_index(tmp_path / "index", "id", cut(), similarity="cosine", model={})
    with pytest.raises(ItemIndexError, match="NaN"):
        write(tmp_path / "index", np.full((3, 8), np.nan, np.float32))
    with pytest.raises(ItemIndexError, match="expected at least one"):
        write(tmp_path / "index", random_vectors(0))
    with pytest.raises(ItemIndexError, match="'nlist': found 9; expected at most 3"):
        write(tmp_path / "index", random_vectors(3), kind="ivf", parameters={"nlist": 9})
    monkeypatch.setattr(item_index, "_faiss", lambda: None)
    with pytest.raises(ItemIndexError, match=r"easyrec_lite\[faiss\]"):
        write(tmp_path / "index", random_vectors(3))
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_not_written_over(tmp_path: Path) -> None:
    write(tmp_path, random_vectors(3))  # into an empty directory
    with pytest.raises(ItemIndexError, match="found an item index; expected nothing there"):
        write(tmp_path, random_vectors(4))
    assert len(ItemIndex(tmp_path).ids) == 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"nprobe": 3}, "expected one of M, efConstruction, efSearch"), ({"M": 1}, "found 1; expected at least 2")],
)
def test_parameters_that_do_not_fit(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ItemIndexError, match=message):
        index_parameters("hnsw", parameters)


def test_queries_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path / "index", random_vectors(5))
    index = ItemIndex(tmp_path / "index")
    with pytest.raises(ItemIndexError, match=r"found shape \[8\]; expected \[N, 8\]"):
        index.search(random_vectors(1)[0], 2)
    with pytest.raises(ItemIndexError, match="k: found 6; expected 1 to 5"):
        index.search(random_vectors(1), 6)
    assert index.search(random_vectors(0), 2)[0].shape == (0, 2)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (ABOUT, None, "found no index.json; expected the directory of an item index"),
        (ABOUT, b"{", "expected JSON"),
        (ABOUT, b'{"format": 2}', "expected format 1"),
        (VECTORS, b"PAR1", "expected ids and vectors"),
        (VECTORS, None, "expected ids and vectors"),
        (INDEX, b"nothing", "expected an index that faiss can read"),
    ],
)
def test_directories_that_are_not_whole(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    write(tmp_path / "index", random_vectors(5))
    if content is None:
        (tmp_path / "index" / file).unlink()
    else:
        (tmp_path / "index" / file).write_bytes(content)
    with pytest.raises(ItemIndexError, match=message):
        ItemIndex(tmp_path / "index")


def test_files_of_two_indexes(tmp_path: Path) -> None:
    write(tmp_path / "one", random_vectors(5))
    write(tmp_path / "two", random_vectors(6))
    (tmp_path / "two" / INDEX).replace(tmp_path / "one" / INDEX)
    with pytest.raises(ItemIndexError, match=r"expected 5 items, as in vectors\.parquet"):
        ItemIndex(tmp_path / "one")


@pytest.mark.parametrize("model", ["dssm", "dssm_pointwise"])
def test_ranks_are_those_of_the_model(tmp_path: Path, exported: Callable[..., Exported], model: str) -> None:
    """Cosine with a temperature, and the inner product with a learned scale."""
    export = exported(model, *SIDES)
    inputs = {n: x.numpy() for n, x in served(columns_of(export.recommender, request_rows(40))).items()}
    own = export.recommender.user_columns
    with LoadedModel(export.path) as session:
        users = session("user_embedding", inputs)["user_tower_emb"]
        write(tmp_path / "index", session("item_embedding", inputs)["item_tower_emb"])
        found, scores = ItemIndex(tmp_path / "index").places(users, 40)
        for user in range(10):
            request = {name: x[[user]] if name in own else x for name, x in inputs.items()}
            logits = session("serving_default", request)["logits"]
            np.testing.assert_array_equal(np.sort(found[user]), np.arange(40))
            assert (np.diff(logits[found[user]]) <= 1e-5).all()
            assert logits[found[user, 0]] == pytest.approx(logits.max(), abs=1e-6)
            assert np.corrcoef(logits[found[user]], scores[user])[0, 1] > 0.9999
